"""Names the colour of an uploaded picture."""

import math
from pathlib import Path
from statistics import mean
from typing import Literal

import bentoml
from PIL import Image
from pydantic import BaseModel

SIDE = 8  # pixels to which a picture is reduced
COLOURS = {
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "grey": (128, 128, 128),
    "red": (210, 30, 30),
    "green": (30, 150, 50),
    "blue": (30, 60, 200),
    "yellow": (240, 220, 40),
}


class Arguments(BaseModel):
    """Given to `bentoml build --arg`."""

    by: Literal["mean", "most"] = "mean"  # the mean of all pixels, or the colour that most pixels have
    converts: bool = True  # whether pictures without colours are accepted


ARGUMENTS = bentoml.use_arguments(Arguments)


@bentoml.service(name="colours", traffic={"timeout": 10})
class Colours:
    @bentoml.api
    def name(self, picture: Path) -> dict[str, str]:
        with Image.open(picture) as opened:
            small = (opened.convert("RGB") if ARGUMENTS.converts else opened).resize((SIDE, SIDE))
        red, green, blue = (channel.tobytes() for channel in small.split())
        if ARGUMENTS.by == "mean":
            return {"label": nearest(mean(red), mean(green), mean(blue))}
        names = [nearest(*pixel) for pixel in zip(red, green, blue, strict=True)]
        return {"label": max(COLOURS, key=names.count)}


def nearest(*pixel: float) -> str:
    return min(COLOURS, key=lambda name: math.dist(pixel, COLOURS[name]))
