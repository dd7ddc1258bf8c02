"""What ``rlrun doctor`` tries out, each in a process of its own: a driver that crashes takes only that one down.

``python -m rlrun.probes NAME [ARGUMENT]`` prints one JSON object: ``{"detail": ...}``, or ``{"error": ...}``.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import importlib
import json
import os
import sys
from typing import Any

_NONE, _GL_RENDERER, _SIZE = 0x3038, 0x1F01, 8
# Modules of the plain install that load much of their own: a missing system library shows here.
MODULES = ("torch", "stable_baselines3", "sb3_contrib", "cv2", "huggingface_hub", "tensorboard")
HUB = "https://huggingface.co"
_REASONS = {
    "gaierror": "its name is not known here",
    "TimeoutError": "no answer in 3 s",
    "ConnectionRefusedError": "the connection is refused",
}


def learning() -> dict[str, Any]:
    """Import what training needs, and look for a GPU.

    :return: ``broken``: modules that cannot be imported, and why; ``gpus``; ``cuda``: torch's; ``torch``: its version
    """
    broken = {}
    for name in MODULES:
        try:
            importlib.import_module(name)
        except Exception as error:  # a broken library may raise anything
            broken[name] = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    found: dict[str, Any] = {"broken": broken, "gpus": [], "cuda": None, "torch": None}
    if "torch" in broken:
        return found
    import torch

    found |= {"cuda": torch.version.cuda, "torch": str(torch.__version__)}
    if torch.cuda.is_available():
        properties = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        found["gpus"] = [{"name": p.name, "memory": p.total_memory} for p in properties]
    return found


def env(name: str) -> dict[str, Any]:
    """Build an env and reset it."""
    import gymnasium

    from rlrun.envs.families import c_output_discarded, import_family

    family = import_family(name)
    with c_output_discarded(family.prints):
        made = gymnasium.make(name)
        made.reset(seed=0)
        made.close()
    return {"detail": f"{name} builds and resets"}


def hub() -> dict[str, Any]:
    """Ask the Hub's endpoint for anything; every answer is one."""
    import urllib.error
    import urllib.request

    endpoint = os.environ.get("HF_ENDPOINT") or HUB
    if not endpoint.startswith(("http://", "https://")):
        return {"error": "it is no http address"}
    scheme, _, rest = endpoint.partition("://")
    address = f"{scheme}://{rest.rpartition('@')[2]}"  # urllib takes what stands before an @ for a part of the name
    request = urllib.request.Request(address, method="HEAD")  # noqa: S310  (the scheme was looked at)
    try:
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(request, timeout=3).close()  # noqa: S310
    except OSError as error:
        reason = type(getattr(error, "reason", None) or error).__name__  # no text of its own: it may hold a password
        return {"error": _REASONS.get(reason, reason)}
    return {"detail": "it answers"}


def egl() -> dict[str, Any]:
    """Make an offscreen OpenGL context with EGL, as MuJoCo does without a display."""
    library = _library("EGL", "libEGL.so.1")
    pointer, handle = ctypes.c_void_p, ctypes.c_void_p
    for function in ("eglGetDisplay", "eglCreateContext", "eglCreatePbufferSurface", "eglGetProcAddress"):
        getattr(library, function).restype = handle
    displays = [*_egl_devices(library), handle(library.eglGetDisplay(pointer(0)))]
    display = next((found for found in displays if library.eglInitialize(found, None, None)), None)
    if display is None:
        return {"error": "libEGL is there, and finds no device"}
    library.eglBindAPI(0x30A2)  # OpenGL
    config, count = handle(), ctypes.c_int()
    wanted = (ctypes.c_int * 5)(0x3033, 1, 0x3040, 8, _NONE)  # a pbuffer, with OpenGL
    if not library.eglChooseConfig(display, wanted, ctypes.byref(config), 1, ctypes.byref(count)) or not count.value:
        return {"error": "libEGL offers no offscreen buffer"}
    context = handle(library.eglCreateContext(display, config, pointer(0), None))
    shape = (ctypes.c_int * 5)(0x3057, _SIZE, 0x3056, _SIZE, _NONE)  # width, height
    surface = handle(library.eglCreatePbufferSurface(display, config, shape))
    if not library.eglMakeCurrent(display, surface, surface, context):
        return {"error": "libEGL is there, and makes no context"}
    return {"detail": _renderer(library.eglGetProcAddress(b"glGetString"))}


def _egl_devices(library: ctypes.CDLL) -> list[ctypes.c_void_p]:
    """The displays of all devices, which need no window system."""
    addresses = [library.eglGetProcAddress(name) for name in (b"eglQueryDevicesEXT", b"eglGetPlatformDisplayEXT")]
    if not all(addresses):
        return []
    kinds = (ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)  # of the arguments of both
    query = ctypes.CFUNCTYPE(ctypes.c_uint, *kinds)(addresses[0])
    open_display = ctypes.CFUNCTYPE(ctypes.c_void_p, *kinds)(addresses[1])
    devices, count = (ctypes.c_void_p * 16)(), ctypes.c_int()
    if not query(16, ctypes.addressof(devices), ctypes.addressof(count)):
        return []
    of_device = 0x313F  # EGL_PLATFORM_DEVICE_EXT
    return [ctypes.c_void_p(open_display(of_device, device, None)) for device in devices[: count.value]]


def osmesa() -> dict[str, Any]:
    """Make an OpenGL context in memory with OSMesa."""
    library = _library("OSMesa", "libOSMesa.so.8")
    library.OSMesaCreateContext.restype = ctypes.c_void_p
    library.OSMesaGetProcAddress.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.OSMesaCreateContext(0x1908, None))  # RGBA
    picture = (ctypes.c_ubyte * (4 * _SIZE * _SIZE))()
    if not context or not library.OSMesaMakeCurrent(context, picture, 0x1401, _SIZE, _SIZE):
        return {"error": "libOSMesa is there, and makes no context"}
    return {"detail": _renderer(library.OSMesaGetProcAddress(b"glGetString"))}


def glx() -> dict[str, Any]:
    """Make an OpenGL context on the X display."""
    x11, gl = _library("X11", "libX11.so.6"), _library("GL", "libGL.so.1")
    for function in (x11.XOpenDisplay, gl.glXChooseVisual, gl.glXCreateContext):
        function.restype = ctypes.c_void_p
    display = ctypes.c_void_p(x11.XOpenDisplay(None))
    if not display:
        return {"error": "there is no X display"}
    visual = ctypes.c_void_p(gl.glXChooseVisual(display, 0, (ctypes.c_int * 2)(4, 0)))  # RGBA
    context = ctypes.c_void_p(gl.glXCreateContext(display, visual, None, 1)) if visual else None
    return {"detail": "a context can be made"} if context else {"error": "the X display has no OpenGL"}


def _library(name: str, usual: str) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(ctypes.util.find_library(name) or usual)
    except OSError:
        raise RuntimeError(f"lib{name} is not installed") from None


def _renderer(address: int | None) -> str:
    if not address:
        return "a context can be made"
    text = ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_uint)(address)(_GL_RENDERER)
    return f"a context can be made; drawn by {text.decode(errors='replace')}" if text else "a context can be made"


def main(name: str, *arguments: str) -> None:
    """Run one probe, and print what it finds."""
    try:
        found = globals()[name](*arguments)
    except Exception as error:  # whatever a library raises is what there is to say
        said = getattr(error, "message", str(error))  # the doctor gives the advice itself
        found = {"error": " ".join(said.split())[:300] or type(error).__name__}
    sys.stdout.write("\n" + json.dumps(found) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
