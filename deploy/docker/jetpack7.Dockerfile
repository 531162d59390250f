# TensorRT 10.13 on a Jetson with JetPack 7; build it there. From the project's root:
#     docker build -f deploy/docker/jetpack7.Dockerfile --build-arg BASE=IMAGE -t vidseg:jetpack7 .
# IMAGE is NVIDIA's `tensorrt:25.09-py3`, with the name that its catalogue gives it.
# JetPack 7 runs the images of ARM servers: there is no L4T image of it. Its TensorRT does not know a Jetson's DLA.
ARG BASE
FROM ${BASE}
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ libgl1 libglib2.0-0t64 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('tensorrt') is None)"
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY runtime runtime
COPY export export
COPY calibration calibration
ENV PATH=/opt/vidseg/bin:/usr/local/cuda/bin:$PATH
RUN echo "CUDA_ENABLE_CURAND = False" > "$HOME/.aksetup-defaults.py" \
    && python3 -m venv --system-site-packages /opt/vidseg \
    && pip install --no-cache-dir . pycuda
# The user's number is that of who owns the mounted folder; the image brings one called ubuntu, which may have it.
ARG UID=1000
RUN if id ubuntu; then userdel --remove ubuntu; fi \
    && useradd --create-home --uid "$UID" --groups video vidseg \
    && install --directory --owner=vidseg --mode=700 /home/vidseg/.cache /home/vidseg/.cache/vidseg /work
USER vidseg
WORKDIR /work
ENTRYPOINT ["vidseg"]
CMD ["doctor"]
