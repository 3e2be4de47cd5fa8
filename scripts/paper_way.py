"""`paper_way.py MODEL PORT`: how the paper serves, to compare with. Its Keras `.h5` is loaded inside the Flask process.

The server is the one that `flask run` starts, a thread for each request; nothing bounds them, as nothing does there.
"""

import sys
from collections.abc import Callable
from typing import IO

import keras
import numpy as np
import numpy.typing as npt
from flask import Flask, Response, jsonify, request
from PIL import Image

SIZE = (224, 224)


def read_picture(file: IO[bytes]) -> npt.NDArray[np.generic]:
    """[224, 224, 3], 0 to 255, as the paper makes it."""
    return np.asarray(Image.open(file).convert("RGB").resize(SIZE))


def create_app(path: str, read: Callable[[IO[bytes]], npt.NDArray[np.generic]] = read_picture) -> Flask:
    """One route, which answers with the probability. Where answers are compared, `read` makes the pixels of the others."""
    app = Flask(__name__)
    model = keras.models.load_model(path)

    @app.post("/predict")
    def predict() -> Response:
        picture = read(request.files["file"].stream)
        output = model.predict(np.asarray(picture, np.float32)[None], verbose=0)
        return jsonify(malignant=float(output[0, 0]))

    return app


if __name__ == "__main__":
    create_app(sys.argv[1]).run(port=int(sys.argv[2]), threaded=True)
