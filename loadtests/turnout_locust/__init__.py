"""Load tests with Locust: scenarios, users, checks, reports. Read `scenarios` first, then `users` and `conductor`.

`main` is the command that starts server and Locust; everything else runs inside of Locust, and no module but `main`
may be imported together with grpc.aio's servers: gevent and grpc.aio both take gRPC's poller.
"""
