# Guard's images: no compiler, not root, every package by its hash.
#
#   docker build -t guard .                                          serves
#   docker build -t guard:tools --target tools .                     with torch: `guard fit`, `adversary`
#   docker build -t guard:gpu --build-arg RUNTIME=gpu --build-arg BASE=... .
#
# RUNTIME=cpu or gpu: which onnxruntime and which torch. In front of a model server it does not matter for serving.
# BASE: where the images start from; it needs Python 3.11 as `python`, and for RUNTIME=gpu CUDA and cuDNN.
# deploy/image/build builds it without a daemon, starts what it built and checks it: docs/image.md.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
# For what is compiled, where there is no compiler yet; it stays behind in this stage. A Python of the distribution wants
# its own headers and venv, too; a BASE without apt-get brings all of it.
ARG BUILD_PACKAGES="gcc libc6-dev"
ARG PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_COMPILE=1
ENV LC_ALL=C.UTF-8 PYTHONDONTWRITEBYTECODE=1
# Debian's mirrors keep one version of a package, so there is none to pin: pin BASE by its digest instead.
# hadolint ignore=DL3008
RUN command -v gcc || { apt-get update && apt-get install --yes --no-install-recommends ${BUILD_PACKAGES} \
 && rm -rf /var/lib/apt/lists/*; }
WORKDIR /src
COPY deploy/requirements deploy/requirements
# An /etc/pip.conf of yours (an index, its password, a certificate) may come as the secret `pip`: no layer holds it.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf python -m venv /opt/build \
 && /opt/build/bin/python -m pip install --require-hashes --only-binary :all: -r deploy/requirements/build.txt
COPY pyproject.toml setup.py README.md LICENSE ./
COPY guard guard
COPY adversary adversary
RUN /opt/build/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
 && python -m venv --without-pip /opt/guard

FROM build AS serve-packages
ARG RUNTIME=cpu
COPY deploy/image deploy/image
RUN --mount=type=secret,id=pip,target=/etc/pip.conf deploy/image/install "serve-${RUNTIME}"

FROM build AS tools-packages
ARG RUNTIME=cpu
# Where the CPU's torch is, which the default index does not have; its hash is in the lock. No index: empty.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY deploy/image deploy/image
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    PIP_EXTRA_INDEX_URL="${TORCH_INDEX}" deploy/image/install "tools-${RUNTIME}"

FROM ${BASE} AS runtime
# For `plane: fast`; a BASE without apt-get brings its own, or the last step of the image fails.
# hadolint ignore=DL3008
RUN python -I -c "import ctypes; ctypes.CDLL('libnghttp2.so.14')" || { apt-get update \
 && apt-get install --yes --no-install-recommends libnghttp2-14 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/ldconfig/* /var/log/*; }
ENV PATH="/opt/guard/bin:${PATH}" PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /etc/guard
ARG VERSION=0 REVISION=unknown CREATED=1970-01-01T00:00:00Z SOURCE=""
LABEL org.opencontainers.image.title="guard" \
      org.opencontainers.image.description="A gRPC proxy that defends a served model" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.source="${SOURCE}"

FROM runtime AS tools
COPY --from=tools-packages /opt/guard /opt/guard
RUN python -I -c "import torch, onnxscript, guard.fit, adversary.cli"
# torch and the data sets' cache want a place to write: mount a tmpfs, or a volume, at /tmp.
ENV USER=guard HOME=/tmp
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["guard"]
CMD ["fit", "--help"]

FROM runtime AS serve
COPY --from=serve-packages /opt/guard /opt/guard
RUN python -I -c "from guard.proxy.fast import library as l; assert l.unusable is None, l.unusable"
# 9000 inference and gRPC health, 9464 metrics, 9465 Guard's own API
EXPOSE 9000 9464 9465
USER 65532:65532
# Of Docker's own format; Kubernetes has probes of its own. Where Guard listens elsewhere or with TLS: guard probe --help.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["guard", "probe"]
ENTRYPOINT ["guard"]
CMD ["serve", "--config", "/etc/guard/guard.yaml"]
