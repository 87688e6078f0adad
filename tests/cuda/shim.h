// What CUDA C++ has and C++ has not, so that g++ compiles a kernel and the CPU runs it, one block at a time.
//
// Every thread of a block is a fiber with a stack of its own. A fiber runs until it waits at __syncthreads(); then the
// next one runs. When all wait, all go on. A block in which some threads wait and others have ended is an error here,
// even where a GPU would let it pass.
#pragma once
#include <csetjmp>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ucontext.h>
#include <vector>

#define __global__
#define __device__
#define __restrict__
#define __forceinline__ inline
#define __grid_constant__
#define __shared__ static
#define __launch_bounds__(...)

using std::ceil, std::erf, std::erfc, std::exp, std::fabs, std::floor, std::fma, std::fmax, std::fmin, std::isinf, std::isnan,
    std::log, std::log1p, std::pow, std::sqrt, std::tanh;

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x = 1, y = 1, z = 1; };

template <typename To, typename From> To same_bits(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}
inline unsigned __float_as_uint(float v) { return same_bits<unsigned>(v); }
inline float __uint_as_float(unsigned v) { return same_bits<float>(v); }
inline float __int_as_float(int v) { return same_bits<float>(v); }
// float16 by hand, which older compilers do not have: to the nearest, of two the even one.
inline unsigned short half_of(float v) {
    const unsigned sign = std::signbit(v) ? 0x8000 : 0;
    const float size = std::fabs(v);
    if (size != size) return sign | 0x7e00;
    if (size >= 65520) return sign | 0x7c00;
    const int exponent = size < 0x1p-14f ? -14 : std::ilogb(size);
    return sign | ((exponent + 14) * 1024 + (int)std::nearbyint(std::ldexp(size, 10 - exponent)));
}
inline float float_of(unsigned short bits) {
    const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    float size = exponent ? std::ldexp(1024.0f + mantissa, exponent - 25) : std::ldexp((float)mantissa, -24);
    if (exponent == 31) size = mantissa ? NAN : INFINITY;
    return bits & 0x8000 ? -size : size;
}
inline float rsqrt(float v) { return 1 / std::sqrt(v); }
inline double rsqrt(double v) { return 1 / std::sqrt(v); }

// ---------------------------------------------------------------- blocks and threads

struct Fiber {
    ucontext_t begin;
    jmp_buf here;
    std::vector<char> stack;
    bool started, ended;
    long waits;  // how often it has waited
};

inline std::vector<Fiber> fibers(1024);
inline ucontext_t scheduler;
inline jmp_buf scheduler_here;
inline unsigned current, many;
inline uint3 blockIdx;
inline dim3 blockDim, gridDim;
inline void (*body)(void **);
inline void **given;
#define threadIdx (uint3{current, 0, 0})

inline void __syncthreads() {
    Fiber &fiber = fibers[current];
    fiber.waits++;
    if (!_setjmp(fiber.here)) _longjmp(scheduler_here, 1);
}

inline void run_fiber() {
    body(given);
    fibers[current].ended = true;
    _longjmp(scheduler_here, 1);
}

inline void resume(Fiber &fiber) {
    if (_setjmp(scheduler_here)) return;
    if (fiber.started) _longjmp(fiber.here, 1);
    fiber.started = true;
    fiber.stack.resize(1 << 16);
    getcontext(&fiber.begin);
    fiber.begin.uc_stack.ss_sp = fiber.stack.data();
    fiber.begin.uc_stack.ss_size = fiber.stack.size();
    fiber.begin.uc_link = nullptr;
    makecontext(&fiber.begin, run_fiber, 0);
    swapcontext(&scheduler, &fiber.begin);
}

// Returns 0, or 1 where the threads of a block did not meet.
inline int launch(void (*kernel)(void **), void **arguments, bool waits, unsigned blocks, unsigned threads) {
    body = kernel, given = arguments;
    gridDim = {blocks}, blockDim = {threads};
    for (unsigned block = 0; block < blocks; block++) {
        blockIdx = {block, 0, 0};
        if (!waits) {
            for (current = 0; current < threads; current++) kernel(arguments);
            continue;
        }
        for (unsigned t = 0; t < threads; t++) fibers[t].started = fibers[t].ended = false, fibers[t].waits = 0;
        for (bool going = true; going;) {
            going = false;
            for (current = 0; current < threads; current++) {
                if (!fibers[current].ended) resume(fibers[current]);
                if (fibers[current].ended != fibers[0].ended || fibers[current].waits != fibers[0].waits) return 1;
                going |= !fibers[current].ended;
            }
        }
    }
    return 0;
}
