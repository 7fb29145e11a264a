"""The four views as radiologists hang them, each with a frame around what the model is for."""

from __future__ import annotations

import base64

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from mammoclip_sdk.exam import View, ViewGeometry
from mammoclip_sdk.prediction import Examination
from mammoclip_sdk.preprocessing import Preprocessing

HANGING = (View.RCC, View.LCC, View.RMLO, View.LMLO)
"""Row by row as radiologists hang them: right breast at the left, chest walls in the middle."""


def pictures(examination: Examination) -> str:
    """Return the section and its caption."""
    prediction = examination.prediction
    geometry = {record.view: record.geometry for record in prediction.views}
    figures = "".join(_figure(view, examination.pictures[view], geometry[view]) for view in HANGING)
    fitted = _fitted(examination.manifest.preprocessing)
    frame = (
        f"would have gone to the model, {fitted}; nothing went to it"
        if prediction.timing.inference is None
        else f"goes to the model, {fitted}"
    )
    return (
        f'<section class="views" aria-label="The four views">{figures}</section>'
        '<p class="caption">Right breast at the left, as hung for reading. '
        f"The frame is the part that {frame}.</p>"
    )


def _fitted(preprocessing: Preprocessing) -> str:
    size = f"{preprocessing.height} rows and {preprocessing.width} columns"
    return f"stretched to {size}" if preprocessing.geometry == "stretch" else f"fitted into {size}"


def _figure(view: View, picture: NDArray[np.uint8], geometry: ViewGeometry) -> str:
    """Draw a view with its chest wall towards the middle of the page, and the crop's frame."""
    chest_wall_right = view.laterality == "R"
    flipped = geometry.mirrored is not chest_wall_right  # mirrored: the source's wall is right
    shown = picture[:, ::-1] if flipped else picture
    png = base64.b64encode(imagecodecs.png_encode(np.ascontiguousarray(shown))).decode()
    rows, columns = geometry.source_shape
    top, left, height, width = geometry.crop
    if flipped:
        left = columns - left - width
    note = " (turned left to right for hanging)" if flipped else ""
    side = "xMaxYMid" if chest_wall_right else "xMinYMid"
    return (
        f'<figure class="{view.laterality}"><svg viewBox="0 0 {columns} {rows}" '
        f'preserveAspectRatio="{side}" role="img" aria-label="{view}">'
        f'<image href="data:image/png;base64,{png}" width="{columns}" height="{rows}" '
        'preserveAspectRatio="none"/>'
        f'<rect x="{left}" y="{top}" width="{width}" height="{height}"/></svg>'
        f"<figcaption>{view}{note}</figcaption></figure>"
    )
