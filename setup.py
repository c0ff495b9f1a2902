"""The compiled kernels. Where no C compiler is, Guard is built without, and works with their plain twins."""

from setuptools import Extension, setup

kernels = Extension(
    "guard._kernels",
    ["guard/_kernels.c"],
    extra_compile_args=["-O3", "-fno-math-errno", "-ffp-contract=off"],
    define_macros=[("Py_LIMITED_API", "0x030b0000")],
    py_limited_api=True,
    optional=True,
)
setup(ext_modules=[kernels], options={"bdist_wheel": {"py_limited_api": "cp311"}})
