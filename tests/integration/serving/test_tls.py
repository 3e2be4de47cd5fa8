"""TLS between whoever asks and the model server, in both directions."""

import numpy as np
import pytest
import trustme
from google.protobuf import text_format

from gateway.errors import ModelServerUnavailable
from gateway.tfserving import TFServingPredictor
from serving.__main__ import main
from serving.channel import CredentialsError, read_credentials
from serving.embedded.settings_pb2 import SSLConfig
from serving.models_config import Deployment, write_models_config
from tests import processes

IMAGE = np.full((224, 224, 3), 51, np.uint8)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """PEM files by name: of the authority, of a client it has signed, and of a stranger."""
    folder = tmp_path_factory.mktemp("pem")
    authority, stranger = trustme.CA(), trustme.CA()
    server, client = authority.issue_cert("127.0.0.1"), authority.issue_cert("gateway@clinic.test")
    blobs = {
        "ca": authority.cert_pem,
        "stranger": stranger.cert_pem,
        "certificate": client.cert_chain_pems[0],
        "key": client.private_key_pem,
    }
    for name, blob in blobs.items():
        blob.write_to_path(folder / name)
    config = SSLConfig(
        server_key=server.private_key_pem.bytes().decode(),
        server_cert=server.cert_chain_pems[0].bytes().decode(),
        custom_ca=authority.cert_pem.bytes().decode(),
    )
    for name, verify in (("ssl.config", False), ("mutual.config", True)):
        config.client_verify = verify
        (folder / name).write_text(text_format.MessageToString(config))
    return {path.name: str(path) for path in folder.iterdir()}


@pytest.fixture(scope="module", params=["ssl.config", "mutual.config"])
def served(request, files, tiny_base, tmp_path_factory):
    """Whether the server asks for a certificate, its address, and a models.config that says what it serves."""
    folder = tmp_path_factory.mktemp("tls")
    flag = f"--ssl_config_file={files[request.param]}"
    with processes.model_server(tiny_base, folder, flag, labels="stable:1,canary:1") as (_, port, _rest):
        config = folder / "operated.config"
        config.write_text("")
        write_models_config(config, Deployment(str(tiny_base), frozenset({1}), {"stable": 1, "canary": 1}))
        yield request.param == "mutual.config", f"127.0.0.1:{port}", config


def ask(address, *names):
    predictor = TFServingPredictor(address, "stable", 3.0, read_credentials(*names))
    try:
        return predictor.predict(IMAGE).model_version
    finally:
        predictor.close()


def test_a_client_that_the_server_knows_is_answered(served, files):
    _, address, _ = served

    assert ask(address, files["ca"], files["certificate"], files["key"]) == 1


def test_a_server_that_asks_for_a_certificate_answers_nobody_without_one(served, files):
    asks, address, _ = served

    if asks:
        with pytest.raises(ModelServerUnavailable):
            ask(address, files["ca"], "", "")
    else:
        assert ask(address, files["ca"], "", "") == 1


@pytest.mark.parametrize("ca", ["", "stranger"])
def test_no_picture_is_sent_in_plain_text_or_to_a_server_of_another_authority(served, files, ca):
    _, address, _ = served

    with pytest.raises(ModelServerUnavailable):
        ask(address, files.get(ca, ""), "", "")


def test_the_server_is_operated_over_tls_too(served, files, capsys):
    _, address, config = served
    command = ["status", "--config", str(config), "--server", address]

    assert main([*command, "--ca", files["ca"], "--certificate", files["certificate"], "--key", files["key"]]) == 0
    assert "stable is answered by version 1" in capsys.readouterr().out
    assert main(command) == 1
    assert f"{address}: UNAVAILABLE" in capsys.readouterr().err
    assert main([*command, "--ca", files["ca"], "--certificate", files["certificate"]]) == 1
    assert "needs its key" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CredentialsError, match=r"nobody\.pem"):
        read_credentials(str(tmp_path / "nobody.pem"), "", "")
