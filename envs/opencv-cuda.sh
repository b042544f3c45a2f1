#!/usr/bin/env bash
# A wheel of OpenCV with CUDA, for flow.backend: opencv-cuda. No OpenCV on PyPI or conda-forge is built with CUDA.
#
#   envs/opencv-cuda.sh            for the GPUs of this machine, as nvidia-smi lists them
#   envs/opencv-cuda.sh 8.0 9.0    for these compute capabilities; needs no GPU
#
# It builds the source package of the release that requirements.lock names, with the CUDA modules that TV-L1 needs,
# and those of the CPU that ccs needs; other parts of cv2 (dnn, highgui, ...) are left out. It prints how to install.
#
# Needs: .venv (make env), with PyPI in reach; g++; nvcc of CUDA 13, the CUDA version of torch's own libraries, from
# NVIDIA's toolkit or from PyPI (below); 4 GB of disk in TMPDIR; 1.5 GB of memory a job; 45 minutes of one core for one
# capability, shared by the jobs. NPP, CMake and ninja come from PyPI. nasm is optional: without it, cv2 decodes JPEG
# by slower code. Nothing in the repository is changed.
# Environment: JOBS (all cores), CCS_WHEELS (the folder of the wheel and its log), CMAKE_ARGS (added to those below).

set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "opencv-cuda.sh: $*" >&2; exit 1; }

# --- what it needs --------------------------------------------------------------------------------------------------

python=$PWD/.venv/bin/python
[[ -x $python ]] || fail "there is no .venv. Run 'make env' first."
command -v g++ >/dev/null || fail "needs g++. Install your system's C++ compiler (Debian, Ubuntu: g++)."
command -v nvcc >/dev/null || fail "needs nvcc, the compiler of CUDA 13, on the PATH; a driver alone brings none." \
    "Install NVIDIA's toolkit, or load your cluster's module for it, or without root:
  $python -m pip install --no-deps --target ~/cuda13 nvidia-{cuda-nvcc,cuda-crt,nvvm,cuda-runtime,cuda-cccl}'==13.0.*'
  export PATH=~/cuda13/nvidia/cu13/bin:\$PATH"
release=$(nvcc --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')
[[ $release == 13.* ]] || fail "nvcc is of CUDA ${release:-unknown}; this environment's libraries are of CUDA 13."
# where nvcc itself looks, since the nvcc on the PATH may be a link or a script
toolkit=$(nvcc --dryrun -x cu /dev/null 2>&1 | sed -n 's/^#\$ TOP=//p' || true)
toolkit=$(realpath "${toolkit:-/nowhere}" 2>/dev/null) || fail "cannot find the toolkit that $(command -v nvcc) is of."
cudart=$(find -L "$toolkit" -name libcudart_static.a -print -quit)
[[ $cudart ]] || fail "$toolkit has no libcudart_static.a. Install the toolkit's cudart-dev too."

if (($#)); then
    archs=("$@")
else
    command -v nvidia-smi >/dev/null || fail "no nvidia-smi here; name compute capabilities: $0 8.0 9.0"
    mapfile -t archs < <(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | sort -u)
fi
((${#archs[@]})) || fail "nvidia-smi lists no GPU; name compute capabilities: $0 8.0 9.0"
for arch in "${archs[@]}"; do
    [[ $arch =~ ^[0-9]+\.[0-9]$ ]] || fail "'$arch' is not a compute capability such as 9.0."
    nvcc --list-gpu-code | grep -x "sm_${arch/./}" >/dev/null || fail "CUDA $release does not build for $arch."
done

package=$(grep -oE '^opencv-contrib-python-headless==[0-9.]+' envs/requirements.lock)
wheels=${CCS_WHEELS:-${XDG_CACHE_HOME:-$HOME/.cache}/ccs/opencv-cuda}
mkdir -p "$wheels"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# --- NPP, and what builds -------------------------------------------------------------------------------------------

pip=("$python" -m pip --disable-pip-version-check)
# CMake before 4 is what this was tried with
"${pip[@]}" install --quiet --target "$work/tools" 'cmake<4' ninja
"${pip[@]}" install --quiet --target "$work/site" --no-deps 'nvidia-npp>=13,<14'
npp=$work/site/nvidia/cu13
for library in "$npp"/lib/libnpp*.so.13; do ln -s "${library##*/}" "${library%.13}"; done # names that the linker knows

# OpenCV generates its typing stubs only for all modules together, and setup.py does not do without: empty ones
mkdir -p "$work/stubs/typing"
touch "$work/stubs/py.typed" "$work/stubs/typing/__init__.py"
cat >"$work/stubs/install.cmake" <<'END'
install(FILES ${CMAKE_CURRENT_LIST_DIR}/py.typed DESTINATION python/cv2)
install(FILES ${CMAKE_CURRENT_LIST_DIR}/typing/__init__.py DESTINATION python/cv2/typing)
END

# --- the wheel ------------------------------------------------------------------------------------------------------

# shellcheck disable=SC2054 # the commas are CMake's
options=(
    -DWITH_CUDA=ON "-DCUDA_ARCH_BIN=$(IFS=';'; echo "${archs[*]}")"
    "-DCUDA_TOOLKIT_ROOT_DIR=$toolkit"
    "-DCUDA_CUDART_LIBRARY=$cudart"            # static: any driver of CUDA 13 does, whatever runtime torch brings
    -DOPENCV_CUDA_FORCE_BUILTIN_CMAKE_MODULE=ON # OpenCV's own FindCUDA; CMake is dropping its
    "-DCMAKE_LIBRARY_PATH=$npp/lib"
    # cudaoptflow brings cudaarithm, cudawarping, cudaimgproc, cudafilters, cudafeatures2d, video and ximgproc
    -DBUILD_LIST=core,imgproc,imgcodecs,videoio,optflow,cudev,cudaoptflow,python3
    "-DCMAKE_PROJECT_OpenCV_INCLUDE=$work/stubs/install.cmake"
    # only the FFT, GEMM, networks and video codecs of other modules want these
    -DWITH_CUFFT=OFF -DWITH_CUBLAS=OFF -DWITH_CUDNN=OFF -DWITH_NVCUVID=OFF -DWITH_NVCUVENC=OFF
    # no download in the middle of the build, so none of what needs one: IPP, a font, ADE, NVIDIA's optical flow engine
    -DOPENCV_DOWNLOAD_TRIES_LIST= -DWITH_IPP=OFF -DWITH_UNIFONT=OFF -DWITH_ADE=OFF
    # JPEG and PNG from the source package, as in PyPI's wheel; FFmpeg if the system has it; nothing else of the system
    -DBUILD_JPEG=ON -DBUILD_PNG=ON -DBUILD_ZLIB=ON -DWITH_TIFF=OFF -DWITH_WEBP=OFF -DWITH_AVIF=OFF -DWITH_OPENJPEG=OFF
    -DWITH_JASPER=OFF -DWITH_OPENEXR=OFF -DWITH_GSTREAMER=OFF -DWITH_V4L=OFF -DWITH_VA=OFF -DWITH_LAPACK=OFF
    -DWITH_EIGEN=OFF -DWITH_VTK=OFF -DWITH_OPENCL=OFF -DWITH_PROTOBUF=OFF -DWITH_FLATBUFFERS=OFF
    # NPP is found beside cv2 in site-packages, and not where it was at the time of building
    -DCMAKE_SKIP_RPATH=ON "\"-DCMAKE_MODULE_LINKER_FLAGS=-Wl,-rpath,'\$ORIGIN'/../nvidia/cu13/lib\""
)
command -v nasm >/dev/null || echo "No nasm: this cv2 will decode JPEG by slower code."
echo "Building $package for ${archs[*]} with CUDA $release (log: $wheels/build.log) ..."
# not from pip's cache, which does not know of CMAKE_ARGS
PATH=$work/tools/cmake/data/bin:$work/tools/bin:$PATH CPATH=$npp/include${CPATH:+:$CPATH} TMPDIR=$work \
    ENABLE_CONTRIB=1 ENABLE_HEADLESS=1 CMAKE_ARGS="${options[*]} ${CMAKE_ARGS:-}" \
    CMAKE_BUILD_PARALLEL_LEVEL=${JOBS:-$(nproc)} \
    "${pip[@]}" wheel --verbose --no-cache-dir --no-deps --no-binary opencv-contrib-python-headless \
    --wheel-dir "$work/wheel" "$package" >"$wheels/build.log" 2>&1 ||
    { tail -n 40 "$wheels/build.log" >&2; fail "the build failed; see $wheels/build.log"; }

wheel=$wheels/$(cd "$work/wheel" && echo *.whl)
mv "$work"/wheel/*.whl "$wheel"

# --- the check ------------------------------------------------------------------------------------------------------

"${pip[@]}" install --quiet --target "$work/site" --no-deps "$wheel"
PYTHONPATH=$work/site "$python" -c '
import cv2
assert hasattr(cv2.cuda, "OpticalFlowDual_TVL1_create"), "built without CUDA"
cv2.optflow.DualTVL1OpticalFlow_create()
print("cv2", cv2.__version__, "with CUDA; usable devices here:", max(0, cv2.cuda.getCudaEnabledDeviceCount()))
' || fail "$wheel does not work; see $wheels/build.log"

npp_version=$(basename "$work"/site/nvidia_npp-*.dist-info .dist-info)
echo "Install it, again whenever .venv is made anew:"
echo "  $python -m pip install --no-deps nvidia-npp==${npp_version#nvidia_npp-}"
echo "  $python -m pip install --no-deps --force-reinstall $wheel"
