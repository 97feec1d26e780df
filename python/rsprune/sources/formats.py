"""Telling images from other files: by the extension where it is known, otherwise by the first bytes.

The decoder looks at the content alone, never at the name.
"""

from __future__ import annotations

import re

__all__ = ["HEAD", "IMAGE_EXTENSIONS", "OTHER_EXTENSIONS", "is_image"]

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

#: JPEG, PNG, TIFF and BigTIFF, WebP; GIF, BMP, JPEG 2000, HEIF and AVIF, JPEG XL.
MAGIC = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|II[*+]\0|MM\0[*+]|RIFF....WEBP"
    rb"|GIF8[79]a|BM....\0\0\0\0....[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0|\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"
    rb"|....ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1|avi[fs])|\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n",
    re.DOTALL,
)


def is_image(head: bytes) -> bool:
    """Return whether a file that begins with these bytes is an image of any common format."""
    return MAGIC.match(head) is not None
