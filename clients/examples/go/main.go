// A Go client of the model's own service and of the admin service: go run . HOST:8001 HOST:8003
// gen/ is made from ../proto/digits.proto (`turnoutctl codegen digits`) and ../../../proto by `make examples`.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"turnout.example/client/gen/admin"
	"turnout.example/client/gen/models"
)

func main() {
	plain := grpc.WithTransportCredentials(insecure.NewCredentials())
	data := must(grpc.NewClient(os.Args[1], plain))
	control := must(grpc.NewClient(os.Args[2], plain))
	digits, slots := models.NewDigitsClient(data), admin.NewSlotServiceClient(control)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	image := make([]float32, 64)
	for pixel := range image {
		image[pixel] = float32(pixel % 16)
	}

	// One inference. Requests with the same sticky key are answered by the same slot while traffic is split.
	show := func() {
		answer := must(digits.Predict(ctx, &models.DigitsRequest{Image: image, StickyKey: "user-7"}))
		fmt.Printf("%s in slot %s says %d\n", answer.Revision, answer.Slot, answer.Label[0])
	}
	show()

	// A stream: requests run side by side, answers come in their order; one that fails says so and ends nothing.
	stream := must(digits.PredictStream(ctx))
	for _, pixels := range [][]float32{image, {1}} {
		must(0, stream.Send(&models.DigitsRequest{Image: pixels}))
	}
	must(0, stream.CloseSend())
	for answer, err := stream.Recv(); err == nil; answer, err = stream.Recv() {
		fmt.Println("the stream says", answer.Label, answer.ErrorMessage)
	}

	// All traffic to another slot in one assignment, and back.
	must(slots.SwapSlots(ctx, &admin.SwapSlotsRequest{Model: "digits", Slot: "v2"}))
	show()
	must(slots.RollbackModel(ctx, &admin.RollbackModelRequest{Model: "digits"}))
	show()
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}
