"""What a visitor sees and does, by the words on the page in either language."""

from playwright.sync_api import Page

from tests.pictures import paint

WORDS = {
    "id": {
        "start": "Mulai pemeriksaan",
        "choose": "Pilih gambar lesi",
        "consent": "Saya setuju",
        "check": "Periksa gambar",
        "cancel": "Batal",
        "close": "Tutup",
        "other language": "English",
        "malignant": "Ada ciri lesi ganas",
        "benign": "Lebih mirip lesi jinak",
        "uncertain": "Belum pasti: mintalah dokter spesialis kulit memeriksa",
        "guarded": "Belum pasti: mintalah dokter spesialis kulit memeriksa",
        "out_of_scope": "Di luar jangkauan alat ini",
    },
    "en": {
        "start": "Start the check",
        "choose": "Choose a picture of the lesion",
        "consent": "I agree",
        "check": "Check the picture",
        "cancel": "Cancel",
        "close": "Close",
        "other language": "Bahasa Indonesia",
        "malignant": "Shows signs of a malignant lesion",
        "benign": "Looks more like a benign lesion",
        "uncertain": "Uncertain: have a dermatologist look",
        "guarded": "Uncertain: have a dermatologist look",
        "out_of_scope": "Outside what this tool can assess",
    },
}


def picture_file(outcome: str = "benign", name: str = "picture.png") -> dict[str, object]:
    return {"name": name, "mimeType": "image/png", "buffer": paint(outcome)}


class Visitor:
    """One person at one page."""

    def __init__(self, page: Page, language: str) -> None:
        self.page = page
        self.words = WORDS[language]

    def button(self, word: str):
        return self.page.get_by_role("button", name=self.words[word], exact=True)

    @property
    def file(self):
        return self.page.get_by_label(self.words["choose"])

    @property
    def consent(self):
        return self.page.get_by_role("checkbox", name=self.words["consent"])

    @property
    def status(self):
        return self.page.get_by_role("status")

    @property
    def result(self):
        """The dialog with the result, once it is open."""
        return self.page.get_by_role("dialog").filter(has=self.page.get_by_role("article"))

    def heading(self, word: str):
        return self.page.get_by_role("heading", name=self.words[word])

    def fill(self, **file: object) -> None:
        """Choose a picture and consent."""
        self.file.set_input_files(file or picture_file())
        self.consent.check()

    def open_dialog(self) -> None:
        self.page.goto("/")
        self.button("start").click()

    def slow_down(self, bytes_per_second: int) -> None:
        """Uploads of this page from now on."""
        session = self.page.context.new_cdp_session(self.page)
        conditions = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": bytes_per_second}
        session.send("Network.enable")
        session.send("Network.emulateNetworkConditions", conditions)
