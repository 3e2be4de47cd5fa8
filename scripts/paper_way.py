"""`paper_way.py MODEL PORT`: how the paper serves, to compare with. Its Keras `.h5` is loaded inside the Flask process.

The server is the one that `flask run` starts, a thread for each request; nothing bounds them, as nothing does there.
"""

import sys

import keras
import numpy as np
from flask import Flask, Response, jsonify, request
from PIL import Image

SIZE = (224, 224)


def create_app(path: str) -> Flask:
    """One route, which answers with the probability."""
    app = Flask(__name__)
    model = keras.models.load_model(path)

    @app.post("/predict")
    def predict() -> Response:
        picture = Image.open(request.files["file"]).convert("RGB").resize(SIZE)
        output = model.predict(np.asarray(picture, np.float32)[None], verbose=0)
        return jsonify(malignant=float(output[0, 0]))

    return app


if __name__ == "__main__":
    create_app(sys.argv[1]).run(port=int(sys.argv[2]), threaded=True)
