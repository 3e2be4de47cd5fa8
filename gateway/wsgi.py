"""Composition root: environment -> settings -> model server -> application. Imported by each worker, after the fork."""

import os

from gateway import logs
from gateway.app import create_app
from gateway.settings import Settings
from gateway.tfserving import TFServingPredictor

logs.configure()
settings = Settings.from_env(os.environ)
app = create_app(settings, TFServingPredictor(settings.model_server, settings.model_label, settings.predict_timeout_s))
