"""Makes quantized variants of versions, offline: the serving process never imports it.

What it needs of the store and of a backend, `app` hands in."""
