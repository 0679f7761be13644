"""Layers of images, entry by entry, and layouts of them."""

import gzip
import hashlib
import io
import json
import os
import tarfile

from layerrun.images.platform import machine


def tar_of(entries):
    """A layer of (name, kind, content or target) and perhaps more of `tarfile.TarInfo`."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, value, *more in entries:
            info = tarfile.TarInfo(name)
            info.mode = 0o755 if kind == "d" else 0o644
            info.type = {"d": tarfile.DIRTYPE, "l": tarfile.SYMTYPE, "h": tarfile.LNKTYPE}.get(
                kind, tarfile.REGTYPE
            )
            for key, what in more[0].items() if more else ():
                setattr(info, key, what)
            if kind in "lh":
                info.linkname = value
                archive.addfile(info)
                continue
            content = value.encode() if kind == "f" else b""
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


def layout_of(path, layers, *, compress=True, **wrong):
    """Write an OCI image layout with these tars as its layers."""
    os.makedirs(f"{path}/blobs/sha256")

    def blob(data, **more):
        digest = hashlib.sha256(data).hexdigest()
        with open(f"{path}/blobs/sha256/{digest}", "wb") as file:
            file.write(data)
        return {"digest": f"sha256:{digest}", "size": len(data), **more}

    def document(value, **more):
        return blob(json.dumps(value).encode(), **more)

    oci = "application/vnd.oci.image."
    diff_ids = [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in layers]
    config = document(
        {
            "os": "linux",
            "architecture": machine().architecture,
            "rootfs": {"type": "layers", "diff_ids": wrong.get("diff_ids", diff_ids)},
        },
        mediaType=oci + "config.v1+json",
    )
    blobs = [
        blob(
            gzip.compress(data, 1, mtime=0) if compress else data,
            mediaType=oci + "layer.v1.tar" + ("+gzip" if compress else ""),
        )
        for data in layers
    ]
    manifest = document(
        {"schemaVersion": 2, "config": config, "layers": blobs}, mediaType=oci + "manifest.v1+json"
    )
    manifest["annotations"] = {"org.opencontainers.image.ref.name": "x"}
    with open(f"{path}/index.json", "w") as file:
        json.dump({"schemaVersion": 2, "manifests": [manifest]}, file)
    with open(f"{path}/oci-layout", "w") as file:
        file.write('{"imageLayoutVersion": "1.0.0"}')
    return path
