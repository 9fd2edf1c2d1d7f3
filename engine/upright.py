"""Pictures turned upright, as their EXIF data says, also where the rest of that data is damaged."""

from PIL import ExifTags, Image, ImageOps

__all__ = ["upright"]

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def upright(picture: Image.Image) -> Image.Image:
    """A copy of the picture, turned. EXIF data that cannot be written again is left out."""
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # half a dozen types, for Pillow writes all of the data again after it has turned the picture
        pass
    try:
        turn = _TURNS.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        turn = None
    turned = picture.copy() if turn is None else picture.transpose(turn)
    turned.info.pop("exif", None)
    return turned
