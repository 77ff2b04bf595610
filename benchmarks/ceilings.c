/* What this CPU can do at most: multiply-add throughput, and memory bandwidth per size.
 * Inline assembly, because compilers spill an array of accumulators. Prints "name value"
 * lines: GFLOP/s for fma_* and dot_* (products of bfloat16), GB/s (read plus
 * write) for copy_<KiB>, from one half of that much memory to the other; reading is no faster.
 * Built and run by benchmarks/kernels.py:  cc -O3 -march=native ceilings.c */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#define TIMES12(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
#define FMA_Z(i) "vfmadd231ps %%zmm14,%%zmm15,%%zmm" #i "\n"
#define DOT_Z(i) "vdpbf16ps %%zmm14,%%zmm15,%%zmm" #i "\n"
#define FMA_Y(i) "vfmadd231ps %%ymm14,%%ymm15,%%ymm" #i "\n"
#define MULADD_X(i) "mulps %%xmm15,%%xmm" #i "\naddps %%xmm14,%%xmm" #i "\n"
#define CLOBBERS "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", \
  "xmm10", "xmm11", "xmm14", "xmm15", "cc"

#define MEASURE(name, body, flops)                                                     \
  {                                                                                    \
    double best = 0;                                                                   \
    for (int repeat = 0; repeat < 40; repeat++) {                                      \
      long n = 200000;                                                                 \
      double t = now();                                                                \
      __asm__ volatile("1:\n" TIMES12(body) "dec %0\njnz 1b\n" : "+r"(n) : : CLOBBERS); \
      t = now() - t;                                                                   \
      double rate = 200000.0 * 12 * (flops) / t / 1e9;                                 \
      if (rate > best) best = rate;                                                    \
    }                                                                                  \
    printf("%s %.2f\n", name, best);                                                   \
  }

int main(void) {
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx")) __asm__ volatile("vzeroall" : : : CLOBBERS);
  if (__builtin_cpu_supports("avx512f")) MEASURE("fma_64", FMA_Z, 32);
  if (__builtin_cpu_supports("avx512bf16")) MEASURE("dot_64", DOT_Z, 64);
  if (__builtin_cpu_supports("fma")) MEASURE("fma_32", FMA_Y, 16);
  if (__builtin_cpu_supports("avx")) __asm__ volatile("vzeroupper");
  MEASURE("fma_16", MULADD_X, 8);
  for (size_t kib = 16; kib <= 65536; kib *= 2) {
    size_t n = kib * 1024 / 8, half = n / 2, rounds = (16u << 20) / (n * 8) + 1;
    double *p = aligned_alloc(64, n * 8), best = 1e9;
    for (size_t i = 0; i < n; i++) p[i] = 1;
    for (int repeat = 0; repeat < 10; repeat++) {
      const double *restrict from = p;
      double *restrict to = p + half;
      double t = now();
      for (size_t r = 0; r < rounds; r++) {
        for (size_t i = 0; i < half; i += 8)
          for (size_t j = 0; j < 8; j++) to[i + j] = from[i + j] + 1.0; /* or it is a memcpy */
        __asm__ volatile("" : : "r"(p) : "memory");
      }
      t = (now() - t) / (double)rounds;
      if (t < best) best = t;
    }
    printf("copy_%zu %.1f\n", kib, (double)n * 8 / best / 1e9);
    free(p);
  }
  return 0;
}
