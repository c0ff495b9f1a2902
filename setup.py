"""What is compiled. Where no C compiler is, Guard is built without, and works with plain twins and the grpcio plane."""

from setuptools import Extension, setup

LIMITED = [("Py_LIMITED_API", "0x030b0000")]
kernels = Extension(
    "guard._kernels",
    ["guard/_kernels.c"],
    extra_compile_args=["-O3", "-fno-math-errno", "-ffp-contract=off"],
    define_macros=LIMITED,
    py_limited_api=True,
    optional=True,
)
nghttp2 = Extension(
    "guard._nghttp2",
    ["guard/_nghttp2.c"],
    depends=["guard/_nghttp2_abi.h"],
    extra_compile_args=["-O2"],
    libraries=["dl"],
    define_macros=LIMITED,
    py_limited_api=True,
    optional=True,
)
setup(ext_modules=[kernels, nghttp2], options={"bdist_wheel": {"py_limited_api": "cp311"}})
