"""Real images, an exact phantom, and readers for a user's own pictures and arrays; all offline."""

from ._images import (
    digits as digits,
    faces as faces,
    patches as patches,
    photograph as photograph,
    photographs as photographs,
    shepp_logan_image as shepp_logan_image,
    train_test_photographs as train_test_photographs,
)
from ._phantom import (
    SHEPP_LOGAN_ELLIPSES as SHEPP_LOGAN_ELLIPSES,
    Ellipse as Ellipse,
    shepp_logan as shepp_logan,
    shepp_logan_sinogram as shepp_logan_sinogram,
)
from ._picture import read_image as read_image
from ._read import read_array as read_array
