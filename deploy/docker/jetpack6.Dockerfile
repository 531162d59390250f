# TensorRT 10.3 on a Jetson with JetPack 6.1 or 6.2; build it there. From the project's root:
#     docker build -f deploy/docker/jetpack6.Dockerfile --build-arg BASE=IMAGE -t vidseg:jetpack6 .
# IMAGE is NVIDIA's `l4t-jetpack:r36.4.0`, with the name that its catalogue gives it.
# The image has TensorRT and its Python module; the environment sees it through --system-site-packages.
ARG BASE
FROM ${BASE}
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ libgl1 libglib2.0-0 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
# Stops here where the image has no TensorRT for Python. It cannot be imported yet: the device's libraries come at run time.
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
# The user's number is that of who owns the mounted folder.
ARG UID=1000
RUN useradd --create-home --uid "$UID" --groups video vidseg \
    && install --directory --owner=vidseg --mode=700 /home/vidseg/.cache /home/vidseg/.cache/vidseg /work
USER vidseg
WORKDIR /work
ENTRYPOINT ["vidseg"]
CMD ["doctor"]
