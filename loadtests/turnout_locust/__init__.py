"""Load tests with Locust: scenarios, users, checks, reports. Read `scenarios` first, then `users` and `conductor`.

`main` is the command that starts server and Locust; `run` and all that it imports live in Locust's processes, where
gevent has gRPC's poller.
"""
