// A Node.js client of the model's own service and of the admin service: node example.mjs HOST:8001 HOST:8003
// Stubs are loaded when it runs, from ../proto/digits.proto (`turnoutctl codegen digits`) and ../../../proto.
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const [endpoint = "127.0.0.1:8001", adminEndpoint = "127.0.0.1:8003"] = process.argv.slice(2);
const includeDirs = ["../proto", "../../../proto"].map((path) => fileURLToPath(new URL(path, import.meta.url)));
const files = ["digits.proto", "turnout/admin/v1/slots.proto"];
const options = { includeDirs, keepCase: true, longs: Number, defaults: true };
const { turnout } = grpc.loadPackageDefinition(loader.loadSync(files, options));

const plain = grpc.credentials.createInsecure();
const digits = new turnout.models.Digits(endpoint, plain);
const admin = new turnout.admin.v1.SlotService(adminEndpoint, plain);
const deadline = () => ({ deadline: Date.now() + 10_000 });
const call = (stub, name) => (message) => promisify(stub[name]).call(stub, message, new grpc.Metadata(), deadline());
const predict = call(digits, "Predict");

const image = Array.from({ length: 64 }, (_, pixel) => pixel % 16);

// One inference. Requests with the same sticky key are answered by the same slot while traffic is split.
async function show() {
  const answer = await predict({ image, sticky_key: "user-7" });
  console.log(`${answer.revision} in slot ${answer.slot} says ${answer.label}`);
}

await show();

// A stream: requests run side by side, answers come in their order; one that fails says so and ends nothing.
const stream = digits.PredictStream(new grpc.Metadata(), deadline());
const said = [];
stream.on("data", (answer) => said.push(answer.error_code ? answer.error_message : answer.label.join()));
for (const request of [{ image }, { image: [1] }]) stream.write(request);
stream.end();
await once(stream, "end");
console.log(`the stream says ${said.join("; ")}`);

// All traffic to another slot in one assignment, and back.
await call(admin, "SwapSlots")({ model: "digits", slot: "v2" });
await show();
await call(admin, "RollbackModel")({ model: "digits" });
await show();
digits.close();
admin.close();
