# syntax=docker/dockerfile:1
# simstream in two variants, as the user `simstream` (10001), never as root:
#
#   docker build --target cuda -t simstream:cuda .      torch as the default index serves it: CUDA, about 5 GB;
#                                                       runs on machines without a GPU all the same
#   docker build --target cpu --build-arg TORCH_INDEX_URL=URL -t simstream:cpu .
#                                                       torch for the CPU alone, about 1 GB. URL is the index of
#                                                       CPU wheels that PyTorch's "get started" page names for
#                                                       pip, or a mirror of it; there is no default on purpose.
#
# Nothing is downloaded at run time while SIMSTREAM_MODEL__NAME is left alone: the base model's weights come as
# a wheel. For a model of the hub, HF_HOME (below) lies in the volume.

ARG PYTHON_IMAGE=python:3.11.13-slim-bookworm

# --- what both variants build on: requirements as a layer of their own, so that code changes rebuild little ---
FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ONLY_BINARY=:all: PATH=/opt/simstream/bin:$PATH
RUN python -m venv /opt/simstream
WORKDIR /build
COPY deploy/lock ./lock
# Every wheel is the one whose hash is written down (deploy/lock/make.py says of what); none is chosen here.
RUN pip install --no-deps --require-hashes -r lock/common.txt

FROM build AS build-cuda
RUN pip install --no-deps --require-hashes -r lock/cuda.txt
COPY . .
RUN PIP_ONLY_BINARY= pip install --no-deps --no-build-isolation . && pip check

FROM build AS build-cpu
ARG TORCH_INDEX_URL
RUN test -n "$TORCH_INDEX_URL" || { echo "the cpu target needs --build-arg TORCH_INDEX_URL=URL"; exit 1; }
COPY constraints.txt ./
# The one wheel without a hash: which build of the version it is, the index decides (`+cpu` satisfies the pin).
RUN pip install --no-deps --index-url "$TORCH_INDEX_URL" "$(grep '^torch==' constraints.txt)"
RUN ! pip list --format=freeze | grep -iE '^(nvidia|cuda|triton)' || { echo "CUDA wheels came along"; exit 1; }
COPY . .
RUN PIP_ONLY_BINARY= pip install --no-deps --no-build-isolation . && pip check

# --- what runs ---
FROM ${PYTHON_IMAGE} AS runtime
RUN groupadd --gid 10001 simstream \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/simstream --shell /usr/sbin/nologin simstream \
 && install -d -o simstream -g simstream /var/lib/simstream
ENV PATH=/opt/simstream/bin:$PATH PYTHONUNBUFFERED=1 HF_HOME=/var/lib/simstream/hub \
    SIMSTREAM_RELEASES__URL=/var/lib/simstream/releases
WORKDIR /var/lib/simstream
VOLUME /var/lib/simstream
USER 10001:10001
EXPOSE 8080
# For `serve`; a consumer answers on its metrics port instead (docker-compose.yml).
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/health/ready', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["simstream"]
CMD ["serve"]

FROM runtime AS cpu
COPY --from=build-cpu /opt/simstream /opt/simstream

FROM runtime AS cuda
COPY --from=build-cuda /opt/simstream /opt/simstream
