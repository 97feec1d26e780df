"""Telling images from other files: by the extension where it is known, otherwise by the first bytes.

The decoder looks at the content alone, never at the name.
"""

from __future__ import annotations

import re

__all__ = ["HEAD", "IMAGE_EXTENSIONS", "OTHER_EXTENSIONS", "extension_of", "is_image"]

#: Extensions of image files, in lower case. Images of a format that is not read are images all the same: they go to the
#: quarantine with their format, where a file that is passed over would vanish.
IMAGE_EXTENSIONS = frozenset(
    f".{name}"
    for name in re.findall(
        r"\w+",
        "jpg jpeg jpe jfif jif pjpeg pjp png apng tif tiff gtif gtiff geotiff btf tf2 tf8 bigtiff webp "
        "gif bmp dib jp2 j2k j2c jpc jpf jpx jpm heic heif avif jxl",
    )
)

#: Extensions of what lies beside images, in lower case: such files are not opened, since a collection may have as many
#: of them as images.
OTHER_EXTENSIONS = frozenset(
    f".{name}"
    for name in re.findall(
        r"\w+",
        "txt json jsonl geojson csv tsv xml yaml yml md html cls cap caption npy npz pt pth pkl pyd parquet arrow h5 "
        "hdf5 mat tar zip gz tgz 7z prj shp shx dbf cpg tfw tifw jgw jpw pgw wld ovr aux py log pdf safetensors",
    )
)

#: The bytes at the start of a file that :func:`is_image` looks at.
HEAD = 32

#: What images begin with, by the extension of their format.
MAGIC = {
    extension: re.compile(magic, re.DOTALL)
    for extension, magic in (
        (".jpg", rb"\xff\xd8\xff"),
        (".png", rb"\x89PNG\r\n\x1a\n"),
        (".tif", rb"II[*+]\0|MM\0[*+]"),
        (".webp", rb"RIFF....WEBP"),
        (".gif", rb"GIF8[79]a"),
        (".bmp", rb"BM....\0\0\0\0....[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0"),
        (".jp2", rb"\0\0\0\x0cjP  \r\n\x87\n"),
        (".j2k", rb"\xff\x4f\xff\x51"),
        (".avif", rb"....ftypavi[fs]"),
        (".heic", rb"....ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1)"),
        (".jxl", rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n"),
    )
}


def extension_of(head: bytes) -> str | None:
    """Return the extension of an image that begins with these bytes; None of what is no image of a common format."""
    return next((extension for extension, magic in MAGIC.items() if magic.match(head)), None)


def is_image(head: bytes) -> bool:
    """Return whether a file that begins with these bytes is an image of any common format."""
    return extension_of(head) is not None
