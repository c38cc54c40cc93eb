"""Says what a flat costs: a Flask process that loads a model, the way most models start."""

import json
import os
from pathlib import Path

from flask import Flask, Response, request

app = Flask("prices")
model = json.loads(Path(__file__).with_name(os.environ["MODEL"]).read_text())


@app.post("/price")
def price() -> Response | tuple[Response, int]:
    flat = request.get_json()
    if not {"district", "area"} <= flat.keys():
        return app.json.response(error="`district` and `area` are required"), 400
    return app.json.response(price=round(flat["area"] * model["price_of_a_square_metre"][flat["district"]]))
