"""Composition root: environment -> settings -> model server -> application. Imported by each worker, after the fork."""

import os

from gateway import logs
from gateway.app import create_app
from gateway.canary import CanaryPredictor
from gateway.open_inference import OpenInferencePredictor
from gateway.predictor import Predictor
from gateway.settings import OPEN_INFERENCE, Settings
from gateway.tfserving import TFServingPredictor
from serving.channel import read_credentials
from serving.contract import CANARY_LABEL

logs.configure()
settings = Settings.from_env(os.environ)
credentials = read_credentials(settings.model_server_ca, settings.model_server_certificate, settings.model_server_key)
timeout_s = settings.predict_timeout_s
predictor: Predictor
if settings.model_server_protocol == OPEN_INFERENCE:
    predictor = OpenInferencePredictor(settings.model_server, timeout_s, credentials)
else:
    stable = TFServingPredictor(settings.model_server, settings.model_label, timeout_s, credentials)
    # Half the time: what a canary takes and fails is taken from the picture's own answer.
    canary = TFServingPredictor(settings.model_server, CANARY_LABEL, timeout_s / 2, credentials)
    predictor = CanaryPredictor(stable, canary, settings.canary_share, settings.shadow_share)
app = create_app(settings, predictor)
