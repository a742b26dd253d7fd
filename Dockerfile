# The service with its providers, and the worker that runs small models on the machine itself.
#   docker build -t moorage .
#   docker run --init --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges \
#     -v moorage:/var/lib/moorage -p 127.0.0.1:8080:8080 moorage
# docs/deploying.md has the settings that several replicas share, and the commands for Kubernetes and Cloud Run.

# The tag moves with security updates of Debian and Python. A digest in its place makes a build repeatable.
ARG PYTHON=python:3.11-slim-trixie

FROM ${PYTHON} AS builder
WORKDIR /build
# Compiled modules hold for the sources beside them, whatever time a copy of these carries: nothing compiles later.
ENV PYC_INVALIDATION_MODE=UNCHECKED_HASH PIP_CACHE_DIR=/var/cache/pip UV_CACHE_DIR=/var/cache/uv
# What others wrote changes seldom: it is a layer of its own. Each file must have a hash that the lock names.
COPY requirements-build.lock requirements-service.lock ./
# The caches are mounts, and in no layer.
# hadolint ignore=DL3042
RUN --mount=type=cache,target=/var/cache/pip --mount=type=cache,target=/var/cache/uv \
    python -m pip install --require-hashes -r requirements-build.lock \
    && python -m venv --without-pip /opt/moorage \
    && uv pip install --python /opt/moorage/bin/python --require-hashes --link-mode copy --compile-bytecode \
        -r requirements-service.lock
COPY pyproject.toml README.md ./
COPY src src
COPY registries registries
COPY providers providers
COPY worker worker
# Nothing is downloaded here: the last check fails where the lock has forgotten something.
RUN python -m pip wheel --no-index --no-deps --no-build-isolation --wheel-dir dist \
        . ./registries ./worker ./providers/kubernetes ./providers/managed ./providers/runpod \
    && uv pip install --python /opt/moorage/bin/python --offline --no-deps --link-mode copy --compile-bytecode \
        dist/*.whl \
    && uv pip check --python /opt/moorage/bin/python

FROM ${PYTHON}
LABEL org.opencontainers.image.title="Moorage" org.opencontainers.image.licenses="MIT"
# The number is the user's whole name: there is no entry in passwd, so that any other number works as well.
RUN install -d -m 0700 -o 10001 -g 10001 /var/lib/moorage
COPY --from=builder /opt/moorage /opt/moorage
ENV PATH=/opt/moorage/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MOORAGE_HOST=0.0.0.0 \
    MOORAGE_DATA_DIR=/var/lib/moorage \
    MOORAGE_LOG_FORMAT=json
VOLUME /var/lib/moorage
# Unless PORT (which Cloud Run sets) or MOORAGE_PORT names another one.
EXPOSE 8080
USER 10001:10001
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import os, urllib.request as r; e = os.environ.get; p = e('MOORAGE_PORT') or e('PORT') or 8080; r.urlopen(f'http://127.0.0.1:{p}/health', timeout=4)"]
# Exec form, so that SIGTERM reaches the service, which finishes what it answers and hands over its leases.
ENTRYPOINT ["moorage"]
CMD ["serve"]
