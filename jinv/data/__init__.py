"""Real images, an exact phantom, and readers of pictures, arrays and data sets; all offline."""

from ._field import Field as Field
from ._fields import Fields as Fields, fields as fields
from ._images import (
    digits as digits,
    faces as faces,
    patches as patches,
    photograph as photograph,
    photographs as photographs,
    shepp_logan_image as shepp_logan_image,
    train_test_photographs as train_test_photographs,
)
from ._pairs import pairs as pairs
from ._phantom import (
    SHEPP_LOGAN_ELLIPSES as SHEPP_LOGAN_ELLIPSES,
    Ellipse as Ellipse,
    shepp_logan as shepp_logan,
    shepp_logan_sinogram as shepp_logan_sinogram,
)
from ._picture import read_image as read_image
from ._read import read_array as read_array
