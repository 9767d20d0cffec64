"""Tries docker/Dockerfile without a container engine: its steps in a Debian 12 root, then what they made."""
