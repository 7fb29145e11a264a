from numpy import bool_, float32, uint8, uint16
from numpy.typing import NDArray

PREPROCESSING_VERSION: int

class UndefinedGreyValuesError(ValueError):
    args: tuple[str, str, str, str]  # subject, found, expected, remedy

def image_memory(size: int) -> NDArray[uint8]: ...
def release_idle_memory() -> None: ...
def decode_run_lengths(
    frame: bytes | memoryview, pixels: NDArray[uint8] | NDArray[uint16]
) -> bool: ...
def decode_jpeg_lossless(
    frame: bytes | memoryview, pixels: NDArray[uint8] | NDArray[uint16]
) -> str | None: ...
def jpeg_blocks_fault(frame: bytes | memoryview, rows: int, columns: int) -> str | None: ...
def jpeg2000_fault(frame: bytes | memoryview) -> str | None: ...
def grey_scale(
    *,
    container_bits: int,
    bits_stored: int,
    signed: bool,
    photometric: str,
    slope: float,
    intercept: float,
    modality_lut: tuple[int, NDArray[uint16]] | None,
    window: tuple[float, float] | None,
    voi_function: str,
    voi_lut: tuple[int, NDArray[uint16]] | None,
    padding: tuple[int, int] | None,
    voi: str,
    percentiles: tuple[float, float],
    pixels: NDArray[uint8] | NDArray[uint16] | None,
) -> tuple[NDArray[float32], float]: ...

class Breast:
    @property
    def blocks(self) -> int: ...
    @property
    def box(self) -> tuple[int, int, int, int]: ...
    @property
    def chest_wall_right(self) -> bool: ...
    @property
    def certain(self) -> bool: ...
    @property
    def block_side(self) -> int: ...
    @property
    def mask(self) -> NDArray[bool_]: ...

def place(
    breast: Breast,
    *,
    shape: tuple[int, int],
    height: int,
    width: int,
    crop_margin: float,
    letterbox: bool,
) -> tuple[tuple[int, int, int, int], tuple[int, int, int, int]]: ...
def find_breast(
    pixels: NDArray[uint8] | NDArray[uint16],
    values: NDArray[float32],
    threshold: float,
    *,
    reduction: tuple[int, bool, int, int] | None = None,
) -> Breast: ...
def measure_tissue(
    pixels: NDArray[uint8] | NDArray[uint16],
    values: NDArray[float32],
    breast: Breast,
    threshold: float,
    *,
    reduction: tuple[int, bool, int, int] | None = None,
) -> tuple[float, float]: ...
def resample(
    pixels: NDArray[uint8] | NDArray[uint16],
    values: NDArray[float32],
    *,
    crop: tuple[int, int, int, int],
    placed: tuple[int, int, int, int],
    shape: tuple[int, int],
    mirrored: bool = False,
    mask: NDArray[bool_] | None = None,
    block_side: int = 0,
    reduction: tuple[int, bool, int, int] | None = None,
) -> NDArray[float32]: ...
