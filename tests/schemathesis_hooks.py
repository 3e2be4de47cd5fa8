"""What schemathesis cannot know of docs/openapi.yaml. Named in SCHEMATHESIS_HOOKS."""

import re
import uuid

import schemathesis
from hypothesis import strategies as st

from tests.pictures import encode, paint, textured

PICTURES = [paint("malignant"), paint("benign", format="JPEG"), paint("out_of_scope", (70, 900)), encode(textured(), "WEBP")]

# A picture is no arbitrary bytes: those would only show one refusal, again and again.
schemathesis.openapi.format("binary", st.sampled_from(PICTURES))


@schemathesis.hook
def before_call(context, case, kwargs):
    """A key names one request, and OpenAPI cannot say so: each request gets its own. One of a wrong form stays as it is."""
    key = (case.headers or {}).get("Idempotency-Key")
    if not isinstance(key, str) or not re.fullmatch(r'"?[\w.~-]{8,128}"?', key, re.ASCII) or key.count('"') == 1:
        return
    if (case.query or {}).get("activation_map") == "overlay":
        # Nor can it say that two parameters exclude each other.
        del case.headers["Idempotency-Key"]
    else:
        case.headers["Idempotency-Key"] = str(uuid.uuid4())
