"""The public descriptors of both planes, for server reflection: `inference`, `turnout.admin.v1`, no private name.

They live in pools of their own: in the process-wide default pool, `inference` may be somebody else's.
"""

from __future__ import annotations

from importlib.resources import files

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool

PUBLIC_SET = "gen/inference.binpb"
ADMIN_SET = "gen/admin.binpb"


def public_pool(*extra: bytes, public_set: str = PUBLIC_SET) -> DescriptorPool:
    """A new pool with the public files, and those of `extra`: serialised FileDescriptorProtos, in any order.

    A module's is `health_pb2.DESCRIPTOR.serialized_pb`. Raises ValueError when a file imports one that is
    neither given nor public, and TypeError when two definitions of a name disagree.
    """
    public = FileDescriptorSet.FromString(files("turnout_wire").joinpath(public_set).read_bytes())
    waiting = [*public.file, *(FileDescriptorProto.FromString(serialised) for serialised in extra)]
    pool = DescriptorPool()
    added: set[str] = set()
    while waiting:
        ready = [file for file in waiting if added.issuperset(file.dependency)]
        if not ready:
            missing = {name for file in waiting for name in file.dependency} - {file.name for file in waiting} - added
            raise ValueError(f"no descriptor of {', '.join(sorted(missing))}; give the files that the others import")
        for file in ready:
            pool.AddSerializedFile(file.SerializeToString())  # type: ignore[no-untyped-call]
            added.add(file.name)
        waiting = [file for file in waiting if file.name not in added]
    return pool
