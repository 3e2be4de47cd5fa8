"""What can go wrong between an upload and an answer. They carry facts; `gateway.problems` knows what HTTP makes of them.

GatewayError
├── PictureError                 the upload cannot be classified, and a person can do something about it
│   ├── NoPicture                no file, or an empty one
│   ├── NoConsent                the person has not agreed that it is assessed
│   ├── NotAPicture              no format we read, whatever its name says
│   ├── BrokenPicture            a format we read, but truncated or damaged
│   ├── Polyglot                 a format we read, and a document, script or archive in the same file
│   ├── UploadTooLarge           more bytes than we take
│   ├── PictureTooLarge          more pixels than we take
│   └── PictureTooSmall          too few pixels to say anything
├── NotIdentified                nobody knows who asks, and this is not for everybody
├── RequestError                 the request, not its picture, is wrong; its text is for whoever sent it
│   ├── BadParameter             a parameter has a value that it does not take
│   ├── NotAcceptable            no form of the answer is one that the client takes
│   ├── TooManyPictures          more than one call takes
│   ├── BadIdempotencyKey        no key of the form that we take
│   ├── IdempotencyKeyReused     the key came before, with another request
│   ├── IdempotencyInProgress    the first request with the key is still at work
│   ├── IdempotencyNotConfigured nothing is kept here, so a key promises nothing
│   └── OverlayNotKept           an answer with a picture in it cannot be kept
├── IdempotencyUnavailable       what is kept cannot be reached, so the promise of a key cannot be given
├── NotPermitted                 known, but not allowed to do this
├── CrossSite                    another site's page has made a browser send it
├── SignInFailed                 what came back from the identity provider proves nothing
├── ProviderUnavailable          the identity provider does not answer
├── AuditUnavailable             the audit record cannot be written, so nothing is answered
├── CaseError                    what goes wrong with kept cases
│   ├── CaseNotFound             there is none with this id
│   ├── InvalidCaseRequest       a finding or a question that is not one
│   └── CasesUnavailable         the database does not answer, or has another revision than the program
├── GatewayOverloaded            more pictures at once than this process takes in
├── Stopping                     told to stop: send what comes next to somebody else
└── PredictionError              no answer from the model server that may be shown
    ├── ModelServerUnavailable   not reachable, or no version of the model is served
    ├── ModelServerOverloaded    its queue is full
    ├── ModelServerTimeout       no answer within the deadline
    └── InvalidModelAnswer       an answer, or metadata, that breaks the contract
"""


class GatewayError(Exception):
    """Root of what the gateway raises on purpose."""


class PictureError(GatewayError):
    """The upload cannot be classified."""


class NoPicture(PictureError):
    """No file was sent, or an empty one."""


class NoConsent(PictureError):
    """The form was sent without the person's consent."""


class NotAPicture(PictureError):
    """The bytes are in no format we read."""


class BrokenPicture(PictureError):
    """The bytes begin like a picture and do not go on like one."""


class Polyglot(PictureError):
    """The bytes are a picture and another kind of file at once; whoever keeps or shows it could take it for the other."""


class UploadTooLarge(PictureError):
    """The upload has too many bytes."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"the upload is larger than {max_bytes} bytes")
        self.max_bytes = max_bytes


class PictureTooLarge(PictureError):
    """The picture has too many pixels."""

    def __init__(self, pixels: int, max_pixels: int) -> None:
        super().__init__(f"the picture has {pixels} pixels, more than {max_pixels}")
        self.pixels = pixels
        self.max_pixels = max_pixels


class PictureTooSmall(PictureError):
    """An edge of the picture has too few pixels."""

    def __init__(self, width: int, height: int, min_edge: int) -> None:
        super().__init__(f"the picture has {width} x {height} pixels; its shorter edge needs {min_edge}")
        self.width = width
        self.height = height
        self.min_edge = min_edge


class NotIdentified(GatewayError):
    """Nobody knows who asks, and this is not for everybody."""


class RequestError(GatewayError):
    """The request cannot be met, whatever its picture is."""


class BadParameter(RequestError):
    """A parameter has a value that it does not take."""


class NotAcceptable(RequestError):
    """The client takes no form in which the answer can be given."""


class TooManyPictures(RequestError):
    """More pictures than one call takes."""


class BadIdempotencyKey(RequestError):
    """The key is too short, too long or has other characters than a key may have."""


class IdempotencyKeyReused(RequestError):
    """The key came before, with another request."""


class IdempotencyInProgress(RequestError):
    """The first request with the key is still at work."""


class IdempotencyNotConfigured(RequestError):
    """There is nowhere to keep an answer."""


class OverlayNotKept(RequestError):
    """The answer would hold the picture, and no picture is kept."""


class IdempotencyUnavailable(GatewayError):
    """Where answers are kept cannot be reached."""


class NotPermitted(GatewayError):
    """Whoever asks is known and may not do this."""


class CrossSite(GatewayError):
    """Another site's page has made a browser send it."""


class SignInFailed(GatewayError):
    """What came back from the identity provider proves nothing."""


class ProviderUnavailable(GatewayError):
    """The identity provider does not answer, or is not the one we were told."""


class AuditUnavailable(GatewayError):
    """What was done could not be recorded, so its answer is not given."""


class CaseError(GatewayError):
    """Something about kept cases."""


class CaseNotFound(CaseError):
    """No case has this id, or no longer."""


class InvalidCaseRequest(CaseError):
    """A finding or a question about cases that is not one; the text says what is wrong."""


class CasesUnavailable(CaseError):
    """The cases' database does not answer, or has another revision than this program knows."""


class GatewayOverloaded(GatewayError):
    """More pictures at once than this process takes in, or than it works on in time."""


class Stopping(GatewayError):
    """The process was told to stop."""


class PredictionError(GatewayError):
    """No answer of the model server that may be shown."""


class ModelServerUnavailable(PredictionError):
    """The model server is not reachable or serves no version of the model."""


class ModelServerOverloaded(PredictionError):
    """The model server's queue is full."""


class ModelServerTimeout(PredictionError):
    """The model server did not answer within the deadline."""


class InvalidModelAnswer(PredictionError):
    """The model server's answer or a version's metadata breaks the contract."""
