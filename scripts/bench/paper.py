"""`python -m scripts.bench.paper MODEL PORT`: the paper's way, Flask and Keras's `model.predict`, and the same for gunicorn.

The code is scripts/paper_way.py. It is given our way from a picture to pixels, for its own gives other pixels and so another
answer; ours decodes a large JPEG at a smaller scale, so it is the faster for it. What it loads is `keras_model.py`'s: the
released weights in Keras's own ResNet50, float32.

Alone it is what `flask run` starts, a thread for each request. Under gunicorn it is two synchronous workers, one for a core,
each with the model and TensorFlow in it. gunicorn's guide says to begin with twice the cores and one more, which is for workers
that wait for something; these only compute, each with as many threads as there are cores.
"""

import sys

from flask import Flask

from scripts import paper_way
from scripts.bench.pixels import read_file


def create_app(path: str) -> Flask:
    """What gunicorn is told to load."""
    return paper_way.create_app(path, read_file)


if __name__ == "__main__":
    create_app(sys.argv[1]).run(port=int(sys.argv[2]), threaded=True)
