from numpy import bool_, float32, uint8, uint16
from numpy.typing import NDArray

PREPROCESSING_VERSION: int

class Breast:
    @property
    def blocks(self) -> int: ...
    @property
    def box(self) -> tuple[int, int, int, int]: ...
    @property
    def chest_wall_right(self) -> bool: ...
    @property
    def block_side(self) -> int: ...
    @property
    def mask(self) -> NDArray[bool_]: ...

def find_breast(
    pixels: NDArray[uint8] | NDArray[uint16], values: NDArray[float32], threshold: float
) -> Breast: ...
def resample(
    pixels: NDArray[uint8] | NDArray[uint16],
    values: NDArray[float32],
    *,
    crop: tuple[int, int, int, int],
    placed: tuple[int, int, int, int],
    shape: tuple[int, int],
    mirrored: bool = False,
    offset: tuple[float, float] = (0.0, 0.0),
    mask: NDArray[bool_] | None = None,
    block_side: int = 0,
) -> NDArray[float32]: ...
