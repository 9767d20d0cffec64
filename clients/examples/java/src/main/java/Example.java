// A Java client of the model's own service and of the admin service, with the stubs that Maven makes of
// ../proto/digits.proto (`turnoutctl codegen digits`) and ../../../proto.
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.stub.StreamObserver;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import turnout.admin.v1.SlotServiceGrpc;
import turnout.admin.v1.Slots;
import turnout.models.DigitsGrpc;
import turnout.models.DigitsOuterClass.DigitsRequest;
import turnout.models.DigitsOuterClass.DigitsResponse;

public class Example {
  static final List<Float> IMAGE = IntStream.range(0, 64).mapToObj(pixel -> (float) (pixel % 16)).toList();

  public static void main(String[] endpoints) throws InterruptedException {
    ManagedChannel data = connect(endpoints[0]), control = connect(endpoints[1]);
    var digits = DigitsGrpc.newBlockingStub(data);
    var slots = SlotServiceGrpc.newBlockingStub(control).withDeadlineAfter(10, TimeUnit.SECONDS);
    show(digits);

    // A stream: requests run side by side, answers come in their order; one that fails says so and ends nothing.
    var done = new CountDownLatch(1);
    var stream = DigitsGrpc.newStub(data).predictStream(new StreamObserver<DigitsResponse>() {
      public void onNext(DigitsResponse answer) {
        System.out.println("the stream says " + answer.getLabelList() + " " + answer.getErrorMessage());
      }
      public void onError(Throwable error) { throw new IllegalStateException(error); }
      public void onCompleted() { done.countDown(); }
    });
    for (var pixels : List.of(IMAGE, List.of(1f)))
      stream.onNext(DigitsRequest.newBuilder().addAllImage(pixels).build());
    stream.onCompleted();
    done.await(10, TimeUnit.SECONDS);

    // All traffic to another slot in one assignment, and back.
    slots.swapSlots(Slots.SwapSlotsRequest.newBuilder().setModel("digits").setSlot("v2").build());
    show(digits);
    slots.rollbackModel(Slots.RollbackModelRequest.newBuilder().setModel("digits").build());
    show(digits);
    data.shutdown();
    control.shutdown();
  }

  // One inference. Requests with the same sticky key are answered by the same slot while traffic is split.
  static void show(DigitsGrpc.DigitsBlockingStub digits) {
    var answer = digits.withDeadlineAfter(10, TimeUnit.SECONDS)
        .predict(DigitsRequest.newBuilder().addAllImage(IMAGE).setStickyKey("user-7").build());
    System.out.printf("%s in slot %s says %d%n", answer.getRevision(), answer.getSlot(), answer.getLabel(0));
  }

  static ManagedChannel connect(String endpoint) {
    return Grpc.newChannelBuilder(endpoint, InsecureChannelCredentials.create()).build();
  }
}
