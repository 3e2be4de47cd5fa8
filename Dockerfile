# Four images: gateway, training, models, loadtests. `make images` builds them all; docs/containers.md says how to use them.
# By tag here; docs/containers.md has the command that builds on a digest.
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim

FROM ${PYTHON_IMAGE} AS base
ENV LANG=C.UTF-8 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app


FROM base AS gateway-root
COPY requirements/gateway.txt /build/
# A mirror of the package index, with its credentials, is a secret of the build: --secret id=pip,src=pip.conf
RUN --mount=type=secret,id=pip PIP_CONFIG_FILE=/run/secrets/pip; export PIP_CONFIG_FILE \
  && python -m venv --without-pip /opt/dermserve \
  && python -m pip --python /opt/dermserve/bin/python install --quiet --no-cache-dir --no-compile --disable-pip-version-check \
    --no-deps --require-hashes --only-binary=:all: --requirement /build/gateway.txt
COPY LICENSE ./
COPY docs/openapi.yaml docs/
COPY web web
COPY serving/*.py serving/golden.png serving/
COPY serving/wire serving/wire
COPY gateway gateway
COPY scripts/image_root.py scripts/image_check.py /build/
# What the imported modules compile to is put beside them, for nothing can write there later.
RUN python /build/image_root.py /root-of-gateway \
  && /opt/dermserve/bin/python /build/image_check.py --compile-into /root-of-gateway


# No shell and no package manager: the interpreter, what it links to, what the lock names, and the gateway.
FROM scratch AS gateway
COPY --from=gateway-root /root-of-gateway /
ENV PATH=/opt/dermserve/bin LANG=C.UTF-8 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 GATEWAY_BIND=0.0.0.0:8000
WORKDIR /app
USER 10001:10001
# The build fails where a module that a setting turns on is missing, and where TensorFlow is not.
RUN --mount=type=bind,source=scripts/image_check.py,target=/tmp/image_check.py ["python", "/tmp/image_check.py"]
EXPOSE 8000
CMD ["python", "-m", "gunicorn", "--config", "gateway/gunicorn.conf.py", "gateway.wsgi:app"]
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Dermserve gateway" \
  org.opencontainers.image.description="Portal and JSON API in front of a model server of skin lesions" \
  org.opencontainers.image.licenses="Apache-2.0" \
  org.opencontainers.image.version="${VERSION}" \
  org.opencontainers.image.revision="${REVISION}"


FROM base AS training
COPY requirements/serving.txt /build/
RUN --mount=type=secret,id=pip PIP_CONFIG_FILE=/run/secrets/pip; export PIP_CONFIG_FILE \
  && python -m venv --without-pip /opt/dermserve \
  && python -m pip --python /opt/dermserve/bin/python install --quiet --no-cache-dir --no-compile --disable-pip-version-check \
    --no-deps --require-hashes --only-binary=:all: --requirement /build/serving.txt
COPY LICENSE ./
COPY serving/*.py serving/golden.png serving/
COPY serving/wire serving/wire
COPY serving/embedded serving/embedded
COPY serving/config serving/config
COPY training training
# Imports both programs, which leaves what they load compiled: nothing can write there later, and TensorFlow is large.
RUN env --unset=PYTHONDONTWRITEBYTECODE /opt/dermserve/bin/python -c "import serving.embedded.__main__, training.__main__"
# Caches of TensorFlow and Matplotlib; /tmp is all that is writable.
ENV PATH=/opt/dermserve/bin:$PATH HOME=/tmp
USER 10001:10001
EXPOSE 8500 8501
CMD ["python", "-m", "training", "--help"]
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Dermserve training" \
  org.opencontainers.image.description="Training and export of versions, and the embedded model server" \
  org.opencontainers.image.licenses="Apache-2.0" \
  org.opencontainers.image.version="${VERSION}" \
  org.opencontainers.image.revision="${REVISION}"


FROM base AS loadtests
COPY requirements/load.txt /build/
RUN --mount=type=secret,id=pip PIP_CONFIG_FILE=/run/secrets/pip; export PIP_CONFIG_FILE \
  && python -m venv --without-pip /opt/dermserve \
  && python -m pip --python /opt/dermserve/bin/python install --quiet --no-cache-dir --no-compile --disable-pip-version-check \
    --no-deps --require-hashes --only-binary=:all: --requirement /build/load.txt
COPY LICENSE ./
COPY loadtests loadtests
ENV PATH=/opt/dermserve/bin:$PATH HOME=/tmp
USER 10001:10001
EXPOSE 8089
CMD ["python", "-m", "locust", "-f", "loadtests/locustfile.py"]
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Dermserve load tests" \
  org.opencontainers.image.description="Locust against a running gateway; HTTP only" \
  org.opencontainers.image.licenses="Apache-2.0" \
  org.opencontainers.image.version="${VERSION}" \
  org.opencontainers.image.revision="${REVISION}"


# Data only, for a volume; nothing in it can be run.
FROM scratch AS models
COPY serving/models/lesion /models/lesion
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Dermserve models" \
  org.opencontainers.image.description="Released versions of the lesion model; its card names the terms of their data" \
  org.opencontainers.image.version="${VERSION}" \
  org.opencontainers.image.revision="${REVISION}"
