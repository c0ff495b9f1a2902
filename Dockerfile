# Guard's serving image: no torch, no compiler, not root.
#
#   docker build -t guard .
#   docker build -t guard:gpu --build-arg RUNTIME=gpu --build-arg BASE=... .
#
# RUNTIME=cpu or gpu: which onnxruntime serves embedded models. It does not matter in front of a model server.
# BASE: where the image starts from; it needs Python 3.11 as `python`, and for RUNTIME=gpu CUDA and cuDNN.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG RUNTIME=cpu
WORKDIR /src
# For what is compiled, where there is no compiler yet; it stays behind in this stage. A BASE without apt-get brings
# its own, and with a Python of its distribution that Python's headers; else the last step fails.
RUN command -v gcc || { apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*; }
COPY pyproject.toml setup.py README.md LICENSE ./
COPY guard guard
COPY adversary adversary
RUN python -m venv /opt/guard \
 && /opt/guard/bin/pip install --no-cache-dir --disable-pip-version-check ".[${RUNTIME},valkey,fast]" \
 && /opt/guard/bin/python -I -c "from guard import kernels; assert kernels.compiled"

FROM ${BASE}
LABEL org.opencontainers.image.title="guard" \
      org.opencontainers.image.description="A gRPC proxy that defends a served model" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/guard /opt/guard
# For `plane: fast`; a BASE without apt-get brings its own, or the last step here fails.
RUN ldconfig -p | grep -q libnghttp2.so.14 || { apt-get update \
 && apt-get install --yes --no-install-recommends libnghttp2-14 && rm -rf /var/lib/apt/lists/*; }
RUN /opt/guard/bin/python -I -c "from guard.proxy.fast import library as l; assert l.unusable is None, l.unusable"
ENV PATH="/opt/guard/bin:${PATH}" PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /etc/guard
# 9000 inference and gRPC health, 9464 metrics, 9465 Guard's own API
EXPOSE 9000 9464 9465
USER 65532:65532
ENTRYPOINT ["guard"]
CMD ["serve", "--config", "/etc/guard/guard.yaml"]
