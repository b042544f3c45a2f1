// TV-L1 of many pairs at once on a CUDA device: the kernels of ccs/flow/gpu_engine.py, compiled by NVRTC when first needed.
//
// Pairs move through slots. A slot holds one pair and its state; a step of the device advances every slot by one phase
// of its own, so that one pair may enlarge its flow to the next level while another iterates. `schedule` decides what
// each slot does next and lists the work, one item a block; then one kernel for each phase takes its items. A slot whose
// pair is done takes the next one from the queue. The host only fills the queue and collects results: many steps are
// one CUDA graph.
//
// Phases of a pair: START (the flow of a level, from the coarser one or zero) -> WARP, with the median before the first
// pass -> ITERATE, a group of iterations in one go, again and again -> MEDIAN before each further pass -> ITERATE ...
// -> WARP `warps` times -> START of the next level or, after the last, STORE -> IDLE.
//
// Arithmetic is that of cv2.optflow.DualTVL1OpticalFlow of OpenCV 5 and of ccs/flow/kernels.py, rounding for rounding,
// but for the order in which the stop test's sum is added up. The compiler fuses nothing (-fmad=false): `fmaf` stands
// where OpenCV fuses. Approximations of the hardware are corrected until they are what IEEE division and root give.
//
// Iterations. A block of WARPS warps holds a tile of 64 x (WARPS * ROWS) pixels for a group of iterations. A lane keeps
// 2 columns x ROWS rows of flow and dual fields in registers; what does not change lies in shared memory. Neighbours to
// the side are in the same warp and are shuffled; those above and below the warp's rows go through shared memory. Each
// iteration spoils one more pixel along the tile's inner edges, so tiles overlap by twice the group's length and a block
// writes only what it owns. Tiles lie within the image, so that every tile treats its own border as the image's: what
// that spoils is not owned. Only levels smaller than a tile need to know where the image ends (SMALL).
//
// The group's length is the cheapest for the number of iterations that are still expected: changes fall nearly as a
// power of their number. Where the flow was finished before the group's last iteration all the same, the group is thrown away
// and made again, shorter: both sides of all fields are kept for that.
//
// The same source compiles for the CPU (tests/flow/cuda_on_cpu.cpp), where it is tested to the bit.

#ifdef __CUDACC_RTC__
typedef unsigned char uint8_t;
typedef unsigned int uint32_t;
#define EXTERN extern "C" __global__ void
#define SHARED_BYTES extern __shared__ float4 shared_bytes[]
#define OPAQUE(pointer) asm volatile("" : "+l"(pointer))  // hides from the compiler what it holds
__device__ __forceinline__ float reciprocal_estimate(float a) {  // relative error 2^-23 at most (PTX manual)
    float result;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(a));
    return result;
}
__device__ __forceinline__ float inverse_root_estimate(float a) {  // relative error 2^-22.9 at most
    float result;
    asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(a));
    return result;
}
#endif

#ifndef ROWS
#define ROWS 5  // of a lane; ccs/flow/gpu_device.py names what fits the device
#endif
#define WARPS 8
#define COLUMNS 64
#define TILE_HEIGHT (WARPS * ROWS)
#define THREADS (WARPS * 32)
#define MAX_GROUP 8      // iterations in one go
#define NUM_EXPECTED 32  // entries of Level.group
#define ALL 0xffffffffu

enum Phase { IDLE, START, WARP, MEDIAN, ITERATE, STORE };
enum Kernel { START_KERNEL, WARP_KERNEL, MEDIAN_KERNEL, ITERATE_KERNEL, ITERATE_SMALL_KERNEL, STORE_KERNEL, NUM_KERNELS };
// planes of a slot: u1, u2 of side 0, of side 1; p11, p12, p21, p22 of side 0, of side 1; gradient x, y, rest of rho
enum Plane { U = 0, P = 4, DATA = 12, NUM_PLANES = 15 };

struct Level {  // of a size of frames; the finest first
    int width, height;
    int pitch;      // elements from row to row, even
    int offset;     // of the level in a frame's pyramid, in elements
    float stop;     // sum of squared changes that ends the iterations: epsilon^2 * pixels
    uint8_t group[NUM_EXPECTED];  // length of the next group, by the iterations that are expected
};

struct Pair {
    int first, second;              // frames, as entries of `images`
    int result;                     // entry of `results` and `flow`
    int level, num_levels;          // the finest level's entry in `levels`
};

struct Slot {
    int phase;
    Pair pair;
    int level;           // 0 is the finest
    int warp, outer, inner;  // warps done, passes done, iterations of the pass done
    int side_u, side_p;  // which side holds the present values
    int num;             // iterations of this step's group
    int tiles_x, tiles_y;  // with their overlap
    int redo;            // whether they are made again, and known to be the warp's last
    int num_changes;     // how many of `changes` are known
    float changes[2];    // sums of the last two iterations
};

struct Result {
    int done;
    int clipped;    // values beyond the bound
    int infinite;   // values that are not finite
};

struct Item {
    int slot, block;
    // of tiles: the first pixel, and what it owns
    short x0, y0, first_x, first_y, end_x, end_y;
};

struct Engine {
    const void* frames;      // in host memory: uint8 (F, frame_size) grey, or float32 (F, image_size) pyramids
    float* images;           // (F, image_size) pyramids
    float* planes;           // (S, NUM_PLANES, plane_size)
    float* partials;         // (S, MAX_GROUP, max_items) sums of squared changes, one a tile
    const Level* levels;
    Slot* slots;             // (S)
    int* counts;             // (S, 2) values clipped and not finite
    const Pair* queue;       // (queue_size), a ring
    int* taken;              // pairs taken from the queue so far, and the number that have been put there
    Item* items;             // (NUM_KERNELS, S * max_items)
    int* num_items;          // (NUM_KERNELS)
    Result* results;         // (R), in host memory
    void* flow;              // (R, 2, H, W) in host memory: float32, or uint8 where scale > 0
    long long image_size, plane_size, flow_size, frame_size;  // in elements
    int num_slots, max_items, queue_size;
    int window, warps, inner, outer;  // median filter's side and numbers of iterations
    float lt, taut, theta;   // lambda * theta, tau / theta, theta
    float scale, bound;      // of 8 bits: 127 / bound, and bound; scale 0 for float32
    int whole_pyramids;      // whether `frames` has them
    double upscale;          // of the flow from level to level
};  // the host's copies of these structures are in gpu_engine.py

__device__ __forceinline__ int ceil_div(int a, int b) { return (a + b - 1) / b; }

__device__ __forceinline__ int tiles_along(int size, int tile, int num) {
    return size <= tile ? 1 : ceil_div(size - 2 * num, tile - 2 * num);
}

__device__ __forceinline__ bool is_small(const Level& level) {
    return level.width < COLUMNS || level.height < TILE_HEIGHT;
}

__device__ __forceinline__ float* plane_of(const Engine& e, int slot, int plane) {
    return e.planes + (slot * (long long)NUM_PLANES + plane) * e.plane_size;
}

__device__ __forceinline__ const Level& level_of(const Engine& e, const Slot& slot, int more = 0) {
    return e.levels[slot.pair.level + slot.level + more];
}

// where the blocks of a kernel have their work listed
__device__ __forceinline__ Item* items_for(const Engine& e, int kernel) {
    return e.items + (long long)kernel * e.num_slots * e.max_items;
}

// of the lanes of a warp, always in the same order; each gets it
template <class T>
__device__ __forceinline__ T warp_sum(T value) {
    for (int apart = 16; apart > 0; apart >>= 1) value += __shfl_xor_sync(ALL, value, apart);
    return value;
}

// -- arithmetic

// sqrt(a^2 + b^2), correctly rounded as C's hypot is; where float32 cannot tell, `close` is set
__device__ __forceinline__ float hypot_or(float a, float b, bool& close) {
    const float high = fmaxf(fabsf(a), fabsf(b)), low = fminf(fabsf(a), fabsf(b));
    // the sum of squares and what its rounding left out; 1e-30 is seen by no 1 + taut * hypot, and spares a division by 0
    const float square = fmaf(high, high, 1e-30f);
    const float both = fmaf(low, low, square);
    const float rest = fmaf(high, high, -square) + fmaf(low, low, square - both);
    const float inverse = inverse_root_estimate(both);
    const float root = both * inverse, half = 0.5f * inverse;
    const float remainder = fmaf(-root, root, both) + rest;
    // A Newton step from the estimate: off by less than 2^-43 of the root (the estimate by 2^-22.4 with its product's
    // rounding: half of that squared for the step, that times 2^-22.9 for `half`, 2^-24 times that for `remainder`).
    // If 2^-41 more and 2^-41 less are rounded to the same number, that is the root's.
    const float result = fmaf(fmaf(both, 0x1p-40f, remainder), half, root);
    close |= fmaf(fmaf(both, -0x1p-40f, remainder), half, root) != result;
    return result;
}

__device__ __forceinline__ float hypot64(float a, float b) {
    double x = a, y = b;
    return (float)sqrt(fma(x, x, y * y));
}

// 1 / n, correctly rounded but for some ten mantissas of n
__device__ __forceinline__ float reciprocal(float n) {
    float estimate = reciprocal_estimate(n);
    return fmaf(fmaf(-n, estimate, 1.0f), estimate, estimate);
}

// a / n, correctly rounded, from `reciprocal` of n (Markstein, 1990, for a correctly rounded one). tests/flow/test_gpu.py
// tries all others, from every estimate that the hardware may give: only a power of two by 2 - 2^-23 may be off, by a
// unit. Where a is below 2^-101 the remainder underflows: there n is 1, and 1 + taut * hypot does not see it.
__device__ __forceinline__ float quotient(float a, float n, float inverse) {
    float q = a * inverse;
    return fmaf(fmaf(-n, q, a), inverse, q);
}

// -- iterations

template <bool SMALL>
__device__ __forceinline__ void iterate_tile(const Engine& e, const Item* item, float4* shared) {
    const int slot_index = item->slot;
    const Slot& slot = e.slots[slot_index];
    const Level& level = level_of(e, slot);
    const int width = level.width, height = level.height;
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    // shared memory: (gradient x, y, rest of rho, 1 / g) and g of each pixel; rows between warps; sums of changes
    float4* constant = shared + threadIdx.x;
    float2* squares = (float2*)(shared + 2 * ROWS * THREADS) + threadIdx.x;
    float2* u_rows = (float2*)(shared + 2 * ROWS * THREADS) + ROWS * THREADS;  // (2, WARPS + 1, 32): first rows of u
    float2* p_rows = u_rows + 2 * 32 * (WARPS + 1);                            // (2, WARPS + 1, 32): last rows of p12, p22
    float* sums = (float*)(p_rows + 2 * 32 * (WARPS + 1));                     // (MAX_GROUP, THREADS)

    const int num = slot.num;
    int first_row, end_row;  // which rows of the lane its tile owns, and which columns
    bool owned0, owned1;
    int small_x, small_y;  // of the lane's first pixel, where the image may end within the tile
    float u1[ROWS][2], u2[ROWS][2], p11[ROWS][2], p12[ROWS][2], p21[ROWS][2], p22[ROWS][2];
    {
        const Item t = *item;
        const int x = t.x0 + 2 * lane, y = t.y0 + warp * ROWS, pitch = level.pitch;
        small_x = x, small_y = y;
        first_row = max(t.first_y - y, 0), end_row = min(t.end_y - y, ROWS);
        owned0 = x >= t.first_x && x < t.end_x, owned1 = x + 1 >= t.first_x && x + 1 < t.end_x;
        const uint32_t here = (uint32_t)(y * pitch + x);
        const long long step = e.plane_size;
        const float* from_u = plane_of(e, slot_index, U + 2 * slot.side_u) + here;
        const float* from_p = plane_of(e, slot_index, P + 4 * slot.side_p) + here;
        const float* data = plane_of(e, slot_index, DATA) + here;
        const auto load = [&](auto read) {
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                float2 ix, iy, rest;
                read(from_u, r, u1[r]), read(from_u + step, r, u2[r]);
                read(from_p, r, p11[r]), read(from_p + step, r, p12[r]);
                read(from_p + 2 * step, r, p21[r]), read(from_p + 3 * step, r, p22[r]);
                read(data, r, (float*)&ix), read(data + step, r, (float*)&iy), read(data + 2 * step, r, (float*)&rest);
                from_u += pitch, from_p += pitch, data += pitch;
                float2 g;
                g.x = ix.x * ix.x + iy.x * iy.x;
                g.y = ix.y * ix.y + iy.y * iy.y;
                // no quotient where the image is flat: 1.1920929e-7 is FLT_EPSILON
                constant[(2 * r) * THREADS] = make_float4(ix.x, iy.x, rest.x, g.x > 1.1920929e-7f ? reciprocal(g.x) : 0.0f);
                constant[(2 * r + 1) * THREADS] = make_float4(ix.y, iy.y, rest.y, g.y > 1.1920929e-7f ? reciprocal(g.y) : 0.0f);
                squares[r * THREADS] = g;
            }
        };
        if (SMALL) {
            load([&](const float* from, int r, float* to) {
                const bool inside = x < width && y + r < height;
                to[0] = inside ? from[0] : 0.0f;
                to[1] = inside && x + 1 < width ? from[1] : 0.0f;
            });
        } else if ((x & 1) == 0) {
            load([](const float* from, int, float* to) {
                const float2 both = *(const float2*)from;
                to[0] = both.x, to[1] = both.y;
            });
        } else {  // the last tile of a row of odd width
            load([](const float* from, int, float* to) { to[0] = from[0], to[1] = from[1]; });
        }
    }
    float2* u_mine = u_rows + 32 * warp + lane;
    float2* p_mine = p_rows + 32 * warp + lane;
    const int other = 32 * (WARPS + 1);  // the second component
    if (warp == 0) p_mine[0] = p_mine[other] = make_float2(0.0f, 0.0f);
    p_mine[32] = make_float2(p12[ROWS - 1][0], p12[ROWS - 1][1]);
    p_mine[other + 32] = make_float2(p22[ROWS - 1][0], p22[ROWS - 1][1]);
    // factors of what lies beyond the tile's left and right edge
    const float left_there = lane == 0 ? 0.0f : 1.0f, left_edge = 1.0f - left_there, right_there = lane == 31 ? 0.0f : 1.0f;
    const float lt = e.lt, taut = e.taut, theta = e.theta;
    __syncthreads();

#pragma unroll 1
    for (int k = 0; k < num; k++) {
        float error0 = 0.0f, error1 = 0.0f;
        {
            float2 above12 = p_mine[0], above22 = p_mine[other];
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                const float left11 = __shfl_up_sync(ALL, p11[r][1], 1), left21 = __shfl_up_sync(ALL, p21[r][1], 1);
                const float2 g = squares[r * THREADS];
#pragma unroll
                for (int c = 0; c < 2; c++) {
                    const float4 at = constant[(2 * r + c) * THREADS];
                    const float rho = at.z + (at.x * u1[r][c] + at.y * u2[r][c]);
                    const float square = c == 0 ? g.x : g.y;
                    const float limit = lt * square;
                    float d = quotient(-rho, square, at.w);
                    d = rho > limit ? -lt : d;
                    d = rho < -limit ? lt : d;
                    const float up12 = c == 0 ? above12.x : above12.y, up22 = c == 0 ? above22.x : above22.y;
                    float div1, div2;
                    if (c == 0) {
                        // in the image's first column OpenCV adds p11 and p12 first: ((p11 - 0) + p12) + (0 - above)
                        div1 = fmaf(p12[r][0], left_edge, fmaf(-left11, left_there, p11[r][0]));
                        div2 = fmaf(p22[r][0], left_edge, fmaf(-left21, left_there, p21[r][0]));
                        div1 += fmaf(p12[r][0], left_there, -up12);
                        div2 += fmaf(p22[r][0], left_there, -up22);
                    } else {
                        div1 = (p11[r][1] - p11[r][0]) + (p12[r][1] - up12);
                        div2 = (p21[r][1] - p21[r][0]) + (p22[r][1] - up22);
                    }
                    const float new1 = (u1[r][c] + d * at.x) + theta * div1;
                    const float new2 = (u2[r][c] + d * at.y) + theta * div2;
                    const float change1 = new1 - u1[r][c], change2 = new2 - u2[r][c];
                    if (r >= first_row && r < end_row) {
                        float& error = c == 0 ? error0 : error1;
                        error = fmaf(change1, change1, fmaf(change2, change2, error));
                    }
                    u1[r][c] = new1, u2[r][c] = new2;
                }
                above12 = make_float2(p12[r][0], p12[r][1]);
                above22 = make_float2(p22[r][0], p22[r][1]);
                if (r == 0) {
                    u_mine[0] = make_float2(u1[0][0], u1[0][1]);
                    u_mine[other] = make_float2(u2[0][0], u2[0][1]);
                }
            }
            if (warp == WARPS - 1) {  // no difference across the tile's last row
                u_mine[32] = make_float2(u1[ROWS - 1][0], u1[ROWS - 1][1]);
                u_mine[other + 32] = make_float2(u2[ROWS - 1][0], u2[ROWS - 1][1]);
            }
            sums[k * THREADS + threadIdx.x] = (owned0 ? error0 : 0.0f) + (owned1 ? error1 : 0.0f);
        }
        __syncthreads();
        const float2 last1 = u_mine[32], last2 = u_mine[other + 32];
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            const float right1 = __shfl_down_sync(ALL, u1[r][0], 1), right2 = __shfl_down_sync(ALL, u2[r][0], 1);
            float dx[4], dy[4], size[4];
            dx[0] = u1[r][1] - u1[r][0];
            dx[1] = (right1 - u1[r][1]) * right_there;
            dx[2] = u2[r][1] - u2[r][0];
            dx[3] = (right2 - u2[r][1]) * right_there;
            if (r < ROWS - 1) {
                const int below = r < ROWS - 1 ? r + 1 : r;
                dy[0] = u1[below][0] - u1[r][0], dy[1] = u1[below][1] - u1[r][1];
                dy[2] = u2[below][0] - u2[r][0], dy[3] = u2[below][1] - u2[r][1];
            } else {
                dy[0] = last1.x - u1[r][0], dy[1] = last1.y - u1[r][1];
                dy[2] = last2.x - u2[r][0], dy[3] = last2.y - u2[r][1];
            }
            if (SMALL) {  // the image's last column and row may lie within the tile
                if (small_x >= width - 1) dx[0] = dx[2] = 0.0f;
                if (small_x + 1 >= width - 1) dx[1] = dx[3] = 0.0f;
                if (small_y + r >= height - 1) dy[0] = dy[1] = dy[2] = dy[3] = 0.0f;
            }
            bool close = false;
#pragma unroll
            for (int j = 0; j < 4; j++) size[j] = hypot_or(dx[j], dy[j], close);
            if (close) {
#pragma unroll
                for (int j = 0; j < 4; j++) size[j] = hypot64(dx[j], dy[j]);
            }
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const float n = 1.0f + taut * size[j];
                const float inverse = reciprocal(n);
                float& px = j < 2 ? p11[r][j & 1] : p21[r][j & 1];
                float& py = j < 2 ? p12[r][j & 1] : p22[r][j & 1];
                px = quotient(px + taut * dx[j], n, inverse);
                py = quotient(py + taut * dy[j], n, inverse);
            }
        }
        p_mine[32] = make_float2(p12[ROWS - 1][0], p12[ROWS - 1][1]);
        p_mine[other + 32] = make_float2(p22[ROWS - 1][0], p22[ROWS - 1][1]);
        __syncthreads();
    }

    {
        // read again: there are no registers to keep it in
        OPAQUE(item);
        const Item t = *item;
        const Slot& slot = e.slots[t.slot];
        const int slot_index = t.slot, pitch = level_of(e, slot).pitch;
        const int x = t.x0 + 2 * lane, y = t.y0 + warp * ROWS;
        const uint32_t here = (uint32_t)(y * pitch + x);
        const long long step = e.plane_size;
        float* to_u = plane_of(e, slot_index, U + 2 * (1 - slot.side_u)) + here;
        float* to_p = plane_of(e, slot_index, P + 4 * (1 - slot.side_p)) + here;
        const auto keep = [&](auto write) {
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                if (r >= first_row && r < end_row) {
                    write(to_u, u1[r]), write(to_u + step, u2[r]);
                    write(to_p, p11[r]), write(to_p + step, p12[r]);
                    write(to_p + 2 * step, p21[r]), write(to_p + 3 * step, p22[r]);
                }
                to_u += pitch, to_p += pitch;
            }
        };
        if (owned0 && owned1 && (x & 1) == 0) {
            keep([](float* to, const float* from) { *(float2*)to = make_float2(from[0], from[1]); });
        } else if (owned0 || owned1) {
            keep([&](float* to, const float* from) {
                if (owned0) to[0] = from[0];
                if (owned1) to[1] = from[1];
            });
        }
    }
    // each warp adds up iterations of its own, always in the same order
    for (int k = warp; k < num; k += WARPS) {
        float sum = 0.0f;
#pragma unroll
        for (int part = 0; part < WARPS; part++) sum += sums[k * THREADS + part * 32 + lane];
        sum = warp_sum(sum);
        if (lane == 0) e.partials[(item->slot * MAX_GROUP + k) * (long long)e.max_items + item->block] = sum;
    }
    __syncthreads();  // the next item's tile uses the same shared memory
}

template <bool SMALL>
__device__ __forceinline__ void iterate_tiles(const Engine& e, int kernel, float4* shared) {
    const Item* items = items_for(e, kernel);
    for (int i = blockIdx.x; i < e.num_items[kernel]; i += gridDim.x) iterate_tile<SMALL>(e, items + i, shared);
}

EXTERN __launch_bounds__(THREADS, 2) iterate(Engine e) {
    SHARED_BYTES;
    iterate_tiles<false>(e, ITERATE_KERNEL, shared_bytes);
}

EXTERN __launch_bounds__(THREADS, 1) iterate_small(Engine e) {
    SHARED_BYTES;
    iterate_tiles<true>(e, ITERATE_SMALL_KERNEL, shared_bytes);
}

// -- other phases: a block has 32 x 8 pixels, a thread one; medians have MEDIAN_ROWS a thread

#define MEDIAN_ROWS 4

struct Place {
    int x, y;
    bool inside;
};

__device__ __forceinline__ int blocks_of(int width, int height, int rows) {
    return ceil_div(width, 32) * ceil_div(height, WARPS * rows);
}

__device__ __forceinline__ Place place_of(int block, int width, int height, int rows) {
    const int blocks_x = ceil_div(width, 32), block_y = block / blocks_x;
    Place place;
    place.x = (block - block_y * blocks_x) * 32 + (threadIdx.x & 31);
    place.y = (block_y * WARPS + (threadIdx.x >> 5)) * rows;
    place.inside = place.x < width && place.y < height;
    return place;
}

// body(slot's index, slot, level, place) for each item of the block
template <class Body>
__device__ __forceinline__ void for_places(const Engine& e, int kernel, int rows, Body body) {
    const Item* items = items_for(e, kernel);
    for (int i = blockIdx.x; i < e.num_items[kernel]; i += gridDim.x) {
        const int slot_index = items[i].slot;
        const Slot& slot = e.slots[slot_index];
        const Level& level = level_of(e, slot);
        body(slot_index, slot, level, place_of(items[i].block, level.width, level.height, rows));
    }
}

struct Tap {
    int low, high;
    float weight;  // of `high`
};

// neighbours of a position, as cv2.resize has them
__device__ __forceinline__ Tap tap_of(double position, int size) {
    Tap tap;
    tap.low = (int)floor(position);
    tap.weight = (float)(position - tap.low);
    if (tap.low < 0) tap.low = 0, tap.weight = 0.0f;
    if (tap.low >= size - 1) tap.low = size - 1, tap.weight = 0.0f;
    tap.high = min(tap.low + 1, size - 1);
    return tap;
}

// the same, as cv2.resize has it where a factor is given: beyond the last pixel, that one by way of the one before it,
// which rounds
__device__ __forceinline__ Tap shrinking(double position, int size) {
    Tap tap = tap_of(position, size);
    if (tap.low == size - 1) tap.low = size - 2, tap.high = size - 1, tap.weight = 1.0f;
    return tap;
}

__device__ __forceinline__ float resized(const float* source, int pitch, const Tap& x, const Tap& y) {
    const float* above = source + (long long)y.low * pitch;
    const float* below = source + (long long)y.high * pitch;
    const float upper = fmaf(above[x.high] - above[x.low], x.weight, above[x.low]);
    const float lower = fmaf(below[x.high] - below[x.low], x.weight, below[x.low]);
    return fmaf(lower - upper, y.weight, upper);
}

// flow from the next coarser level, or zero at the coarsest; dual fields zero
EXTERN __launch_bounds__(THREADS) start(Engine e) {
    for_places(e, START_KERNEL, 1, [&](int slot_index, const Slot& slot, const Level& level, const Place& place) {
        if (!place.inside) return;
        const long long at = (long long)place.y * level.pitch + place.x;
        float value[2] = {0.0f, 0.0f};
        if (slot.level + 1 < slot.pair.num_levels) {
            const Level& coarser = level_of(e, slot, 1);
            // float64, as in OpenCV: one bit decides where a position falls on a pixel
            const Tap x = tap_of((place.x + 0.5) * ((double)coarser.width / level.width) - 0.5, coarser.width);
            const Tap y = tap_of((place.y + 0.5) * ((double)coarser.height / level.height) - 0.5, coarser.height);
            for (int k = 0; k < 2; k++)
                value[k] = (float)(e.upscale * resized(plane_of(e, slot_index, U + 2 * slot.side_u + k), coarser.pitch, x, y));
        }
        for (int k = 0; k < 2; k++) plane_of(e, slot_index, U + 2 * (1 - slot.side_u) + k)[at] = value[k];
        for (int k = 0; k < 4; k++) plane_of(e, slot_index, P + 4 * slot.side_p + k)[at] = 0.0f;
    });
}

// weights of the taps at -1, 0, 1 and 2 for a fraction t in [0, 1), as OpenCV 5 rounds them
__device__ __forceinline__ void cubic(float t, float* weights) {
    const float a = -0.75f, rest = 1.0f - t;
    weights[0] = a * (t * (rest * rest));
    weights[1] = fmaf(fmaf(a + 2.0f, t, -(a + 3.0f)), t * t, 1.0f);
    weights[3] = a * (rest * (t * t));
    weights[2] = ((1.0f - weights[0]) - weights[1]) - weights[3];
}

// The bicubic samples of the second image and of its gradient images; those outside are zero, also of the gradients.
// Gradients are differences of neighbours, those at borders too, where the pixel itself stands in for the one outside,
// so that clamped columns and rows serve both. Their half is taken at the end: it rounds nothing.
template <bool INSIDE>
__device__ __forceinline__ void sample(
    const float* image, int pitch, int width, int height, int left, int above, const float* wx, const float* wy, float* out) {
    int columns[6];
#pragma unroll
    for (int k = 0; k < 6; k++) columns[k] = INSIDE ? left + k - 2 : min(max(left + k - 2, 0), width - 1);
    float upper[6], middle[6], lower[6];
    const auto row = [&](int y) { return image + (uint32_t)((INSIDE ? y : min(max(y, 0), height - 1)) * pitch); };
    const float* first = row(above - 2);
    const float* second = row(above - 1);
#pragma unroll
    for (int k = 1; k < 5; k++) upper[k] = first[columns[k]];
#pragma unroll
    for (int k = 0; k < 6; k++) middle[k] = second[columns[k]];
    out[0] = out[1] = out[2] = 0.0f;
#pragma unroll
    for (int m = 0; m < 4; m++) {
        const float* next = row(above + m);
        const bool row_inside = INSIDE || (above + m - 1 >= 0 && above + m - 1 < height);
#pragma unroll
        for (int k = 0; k < 6; k++)
            if (m < 3 || (k > 0 && k < 5)) lower[k] = next[columns[k]];
        float sums[3] = {0.0f, 0.0f, 0.0f};
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const bool inside = INSIDE || (row_inside && left + k - 1 >= 0 && left + k - 1 < width);
            const float weight = inside ? wx[k] : 0.0f;
            // the first product needs no sum: adding it to zero rounds nothing
            sums[0] = fmaf(middle[k + 1], weight, sums[0]);
            sums[1] = fmaf(middle[k + 2] - middle[k], weight, sums[1]);
            sums[2] = fmaf(lower[k + 1] - upper[k + 1], weight, sums[2]);
        }
#pragma unroll
        for (int j = 0; j < 3; j++) out[j] = fmaf(sums[j], wy[m], out[j]);
#pragma unroll
        for (int k = 0; k < 6; k++) upper[k] = middle[k], middle[k] = lower[k];
    }
    out[1] *= 0.5f, out[2] *= 0.5f;
}

EXTERN __launch_bounds__(THREADS) warp(Engine e) {
    for_places(e, WARP_KERNEL, 1, [&](int slot_index, const Slot& slot, const Level& level, const Place& place) {
        if (!place.inside) return;
        const int width = level.width, height = level.height, pitch = level.pitch;
        const uint32_t at = (uint32_t)(place.y * pitch + place.x);
        const float flow_x = plane_of(e, slot_index, U + 2 * slot.side_u)[at];
        const float flow_y = plane_of(e, slot_index, U + 2 * slot.side_u + 1)[at];
        // the limits keep wild flow within the range of integers; beyond them all samples are outside anyway
        const float position_x = fminf(fmaxf((float)place.x + flow_x, -4.0f), (float)(width + 3));
        const float position_y = fminf(fmaxf((float)place.y + flow_y, -4.0f), (float)(height + 3));
        const float left = floorf(position_x), above = floorf(position_y);
        float wx[4], wy[4], found[3];
        cubic(position_x - left, wx);
        cubic(position_y - above, wy);
        const float* image = e.images + slot.pair.second * e.image_size + level.offset;
        if (left >= 2.0f && above >= 2.0f && left < (float)(width - 3) && above < (float)(height - 3))
            sample<true>(image, pitch, width, height, (int)left, (int)above, wx, wy, found);
        else
            sample<false>(image, pitch, width, height, (int)left, (int)above, wx, wy, found);
        const float before = (e.images + slot.pair.first * e.image_size + level.offset)[at];
        plane_of(e, slot_index, DATA)[at] = found[1];
        plane_of(e, slot_index, DATA + 1)[at] = found[2];
        plane_of(e, slot_index, DATA + 2)[at] = ((found[0] - found[1] * flow_x) - found[2] * flow_y) - before;
    });
}

// -- medians, by networks of minima and maxima in registers

__device__ __forceinline__ void sort2(float& a, float& b) {
    const float low = fminf(a, b);
    b = fmaxf(a, b);
    a = low;
}

__device__ __forceinline__ void sort3(float* v) {
    sort2(v[0], v[1]), sort2(v[1], v[2]), sort2(v[0], v[1]);
}

__device__ __forceinline__ void sort5(float* v) {
    sort2(v[0], v[3]), sort2(v[1], v[4]), sort2(v[0], v[2]), sort2(v[1], v[3]), sort2(v[0], v[1]);
    sort2(v[2], v[4]), sort2(v[1], v[2]), sort2(v[3], v[4]), sort2(v[2], v[3]);
}

// Batcher's odd-even merges of two sorted rows
__device__ __forceinline__ void merge22(const float* a, const float* b, float* out) {
    out[0] = fminf(a[0], b[0]), out[1] = fmaxf(a[0], b[0]), out[2] = fminf(a[1], b[1]), out[3] = fmaxf(a[1], b[1]);
    sort2(out[1], out[2]);
}

__device__ __forceinline__ void merge33(const float* a, const float* b, float* out) {
    const float even_a[2] = {a[0], a[2]}, even_b[2] = {b[0], b[2]};
    float even[4];
    merge22(even_a, even_b, even);
    out[0] = even[0], out[1] = fminf(a[1], b[1]), out[2] = even[1], out[3] = fmaxf(a[1], b[1]), out[4] = even[2], out[5] = even[3];
    sort2(out[1], out[2]), sort2(out[3], out[4]);
}

__device__ __forceinline__ void merge55(const float* a, const float* b, float* out) {
    const float even_a[3] = {a[0], a[2], a[4]}, even_b[3] = {b[0], b[2], b[4]}, odd_a[2] = {a[1], a[3]}, odd_b[2] = {b[1], b[3]};
    float even[6], odd[4];
    merge33(even_a, even_b, even);
    merge22(odd_a, odd_b, odd);
    out[0] = even[0], out[9] = even[5];
#pragma unroll
    for (int k = 0; k < 4; k++) out[2 * k + 1] = odd[k], out[2 * k + 2] = even[k + 1], sort2(out[2 * k + 1], out[2 * k + 2]);
}

// The 8th to 13th of two sorted tens, sorted. min(a[i], b[9 - i]) are the ten smallest, and rise, then fall; so the five
// largest of them are the larger ones of those five apart. Likewise for the ten largest.
__device__ __forceinline__ void middle6(const float* a, const float* b, float* out) {
    float low[5], high[5];
#pragma unroll
    for (int k = 0; k < 5; k++) {
        low[k] = fmaxf(fminf(a[k], b[9 - k]), fminf(a[k + 5], b[4 - k]));
        high[k] = fminf(fmaxf(a[k], b[9 - k]), fmaxf(a[k + 5], b[4 - k]));
    }
    sort5(low), sort5(high);
    out[0] = low[2], out[1] = low[3], out[2] = low[4], out[3] = high[0], out[4] = high[1], out[5] = high[2];
}

// the middle one of a sorted six and a sorted five
__device__ __forceinline__ float middle11(const float* a, const float* b) {
    const float lower = fminf(fminf(a[5], fmaxf(a[4], b[0])), fmaxf(a[3], b[1]));
    return fminf(lower, fminf(fminf(fmaxf(a[2], b[2]), fmaxf(a[1], b[3])), fmaxf(a[0], b[4])));
}

struct Window {  // of five columns around a pixel; borders repeat
    const float* source;
    int pitch, height;
    uint32_t columns[5];
    __device__ __forceinline__ void row5(int y, float* out) const {
        const float* row = source + (uint32_t)(min(max(y, 0), height - 1) * pitch);
#pragma unroll
        for (int k = 0; k < 5; k++) out[k] = row[columns[k]];
        sort5(out);
    }
    __device__ __forceinline__ void row3(int y, float* out) const {
        const float* row = source + (uint32_t)(min(max(y, 0), height - 1) * pitch);
#pragma unroll
        for (int k = 0; k < 3; k++) out[k] = row[columns[k + 1]];
        sort3(out);
    }
};

// 3x3 median of MEDIAN_ROWS pixels downwards
__device__ __forceinline__ void median3(const Window& window, float* target, int y) {
    float rows[3][3];
    window.row3(y - 1, rows[0]);
    window.row3(y, rows[1]);
#pragma unroll
    for (int r = 0; r < MEDIAN_ROWS; r++) {
        window.row3(y + r + 1, rows[2]);
        float middles[3] = {rows[0][1], rows[1][1], rows[2][1]};
        sort3(middles);
        float last[3] = {
            fmaxf(fmaxf(rows[0][0], rows[1][0]), rows[2][0]), middles[1], fminf(fminf(rows[0][2], rows[1][2]), rows[2][2])};
        sort3(last);
        if (y + r < window.height) target[(uint32_t)((y + r) * window.pitch) + window.columns[2]] = last[1];
#pragma unroll
        for (int k = 0; k < 3; k++) rows[0][k] = rows[1][k], rows[1][k] = rows[2][k];
    }
}

// 5x5 median of MEDIAN_ROWS pixels downwards, two at a time: of the four rows that the windows of both share, sorted and
// merged, only the middle six pixels can be the median of either. That takes 74 minima and maxima a pixel; the best
// network for 25 values alone takes 198.
__device__ __forceinline__ void median5(const Window& window, float* target, int y) {
    float first[5], third[5], fourth[5], fifth[5], upper[10], lower[10], middle[6];
    window.row5(y - 2, first);
    window.row5(y, third);
    window.row5(y - 1, fourth);
    merge55(fourth, third, upper);
    window.row5(y + 1, fourth);
#pragma unroll
    for (int row = y; row < y + MEDIAN_ROWS; row += 2) {
        window.row5(row + 2, fifth);
        merge55(fourth, fifth, lower);
        middle6(upper, lower, middle);
        if (row < window.height) target[(uint32_t)(row * window.pitch) + window.columns[2]] = middle11(middle, first);
        window.row5(row + 3, fourth);
        if (row + 1 < window.height) target[(uint32_t)((row + 1) * window.pitch) + window.columns[2]] = middle11(middle, fourth);
#pragma unroll
        for (int k = 0; k < 5; k++) first[k] = third[k], third[k] = fifth[k];
#pragma unroll
        for (int k = 0; k < 10; k++) upper[k] = lower[k];
    }
}

EXTERN __launch_bounds__(THREADS) median(Engine e) {
    for_places(e, MEDIAN_KERNEL, MEDIAN_ROWS, [&](int slot_index, const Slot& slot, const Level& level, const Place& place) {
        if (!place.inside) return;
        Window window;
        window.pitch = level.pitch, window.height = level.height;
#pragma unroll
        for (int k = 0; k < 5; k++) window.columns[k] = min(max(place.x + k - 2, 0), level.width - 1);
#pragma unroll 1
        for (int k = 0; k < 2; k++) {
            window.source = plane_of(e, slot_index, U + 2 * slot.side_u + k);
            float* target = plane_of(e, slot_index, U + 2 * (1 - slot.side_u) + k);
            if (e.window == 3)
                median3(window, target, place.y);
            else
                median5(window, target, place.y);
        }
    });
}

// the flow into host memory, in pixels or as ccs.flow.quantise has it
EXTERN __launch_bounds__(THREADS) store(Engine e) {
    for_places(e, STORE_KERNEL, 1, [&](int slot_index, const Slot& slot, const Level& level, const Place& place) {
        int clipped = 0, infinite = 0;
        if (place.inside) {
            const long long pixels = (long long)level.width * level.height;
            for (int k = 0; k < 2; k++) {
                const float value = plane_of(e, slot_index, U + 2 * slot.side_u + k)[(long long)place.y * level.pitch + place.x];
                const long long at = slot.pair.result * e.flow_size + k * pixels + (long long)place.y * level.width + place.x;
                infinite += !(fabsf(value) <= 3.4028235e38f);
                if (e.scale > 0.0f) {
                    clipped += fabsf(value) > e.bound;
                    ((uint8_t*)e.flow)[at] = (uint8_t)(fminf(fmaxf(rintf(value * e.scale), -127.0f), 127.0f) + 128.0f);
                } else {
                    ((float*)e.flow)[at] = value;
                }
            }
        }
        clipped = warp_sum(clipped), infinite = warp_sum(infinite);
        if ((threadIdx.x & 31) == 0) {
            if (clipped) atomicAdd(e.counts + 2 * slot_index, clipped);
            if (infinite) atomicAdd(e.counts + 2 * slot_index + 1, infinite);
        }
    });
}

// One level of the pyramids of frames that have come: block y is of frames[y]. Level 0 is the frame itself.
struct Frame {
    int entry;         // of `frames` and `images`
    int level, num_levels;  // the finest level's entry in `levels`
};

EXTERN __launch_bounds__(THREADS) pyramid(Engine e, const Frame* frames, int number, double step) {
    const Frame frame = frames[blockIdx.y];
    if (number >= frame.num_levels) return;
    const Level& level = e.levels[frame.level + number];
    float* image = e.images + frame.entry * e.image_size;
    for (int block = blockIdx.x; block < blocks_of(level.width, level.height, 1); block += gridDim.x) {
        const Place place = place_of(block, level.width, level.height, 1);
        if (!place.inside) continue;
        const long long at = level.offset + (long long)place.y * level.pitch + place.x;
        float value;
        if (e.whole_pyramids) {
            value = ((const float*)e.frames)[frame.entry * e.image_size + at];
        } else if (number == 0) {
            const uint8_t* grey = (const uint8_t*)e.frames + frame.entry * e.frame_size;
            value = (float)grey[(long long)place.y * level.width + place.x];
        } else {
            const Level& finer = e.levels[frame.level + number - 1];
            const Tap x = shrinking((place.x + 0.5) * step - 0.5, finer.width);
            const Tap y = shrinking((place.y + 0.5) * step - 0.5, finer.height);
            value = resized(image + finer.offset, finer.pitch, x, y);
        }
        image[at] = value;
    }
}

// -- what each slot does next

__device__ __forceinline__ void after_warp(const Engine& e, Slot& slot) {
    slot.warp++;
    slot.outer = slot.inner = slot.num_changes = 0;
    if (slot.warp < e.warps) {
        slot.phase = WARP;
    } else if (slot.level > 0) {
        slot.warp = 0;
        slot.level--;
        slot.phase = START;
    } else {
        slot.phase = STORE;
    }
}

// iterations that are left of the pass, were the change to go on falling with the same power of their number
__device__ __forceinline__ int expected(const Slot& slot, float stop, int inner) {
    const int left = inner - slot.inner;
    float guess = 4.0f;
    if (slot.num_changes == 2 && slot.inner > 1) {
        const float done = (float)slot.inner, power = logf(slot.changes[0] / slot.changes[1]) / logf(done / (done - 1.0f));
        guess = slot.changes[1] < slot.changes[0] ? ceilf(done * (expf(logf(slot.changes[1] / stop) / power) - 1.0f)) : (float)left;
    }
    return guess >= 1.0f ? (guess < (float)left ? (int)guess : left) : 1;  // a NaN, of a stop at 0, is neither
}

__device__ __forceinline__ void set_group(Slot& slot, const Level& level, int num) {
    slot.num = num;
    slot.tiles_x = tiles_along(level.width, COLUMNS, num);
    slot.tiles_y = tiles_along(level.height, TILE_HEIGHT, num);
}

__device__ __forceinline__ void plan_group(const Engine& e, Slot& slot) {
    const Level& level = level_of(e, slot);
    const int left = expected(slot, level.stop, e.inner);
    slot.redo = 0;
    set_group(slot, level, level.group[min(left, NUM_EXPECTED - 1)]);
}

// the stop rule, after a group of iterations with these sums of squared changes
__device__ __forceinline__ void judge(const Engine& e, Slot& slot, const float* changes) {
    const float stop = level_of(e, slot).stop;
    int made = slot.num;
    for (int k = slot.num - 1; k >= 0; k--)
        if (!(changes[k] > stop)) made = k + 1;
    if (slot.redo == 0 && made < slot.num) {  // the sides stay as they are
        slot.redo = 1;
        set_group(slot, level_of(e, slot), made);
        return;
    }
    slot.side_u = 1 - slot.side_u;
    slot.side_p = 1 - slot.side_p;
    slot.inner += slot.num;
    bool finished = slot.redo || !(changes[slot.num - 1] > stop);
    for (int k = 0; k < slot.num; k++) {
        slot.changes[0] = slot.changes[1];
        slot.changes[1] = changes[k];
        slot.num_changes = min(slot.num_changes + 1, 2);
    }
    if (!finished && slot.inner == e.inner) {
        slot.inner = slot.num_changes = 0;
        slot.outer++;
        finished = slot.outer == e.outer;
        if (e.window > 1) slot.phase = MEDIAN;
    }
    if (finished)
        after_warp(e, slot);
    else
        plan_group(e, slot);
}

__device__ __forceinline__ void advance(const Engine& e, Slot& slot, const float* changes) {
    switch (slot.phase) {
        case START:
            slot.phase = WARP;
            slot.side_u = 1 - slot.side_u;
            break;
        case WARP:
        case MEDIAN:
            slot.phase = ITERATE;
            if (e.window > 1) slot.side_u = 1 - slot.side_u;
            plan_group(e, slot);
            break;
        case ITERATE:
            judge(e, slot, changes);
            break;
        default:
            break;
    }
}

// blocks that a slot needs of a kernel in this step
__device__ __forceinline__ int items_of(const Engine& e, const Slot& slot, int kernel) {
    if (slot.phase == IDLE) return 0;
    const Level& level = level_of(e, slot);
    const int pixels = blocks_of(level.width, level.height, 1);
    switch (kernel) {
        case START_KERNEL:
            return slot.phase == START ? pixels : 0;
        case WARP_KERNEL:
            return slot.phase == WARP ? pixels : 0;
        case MEDIAN_KERNEL:
            return e.window > 1 && (slot.phase == WARP || slot.phase == MEDIAN) ? blocks_of(level.width, level.height, MEDIAN_ROWS) : 0;
        case STORE_KERNEL:
            return slot.phase == STORE ? pixels : 0;
        default:
            if (slot.phase != ITERATE || is_small(level) != (kernel == ITERATE_SMALL_KERNEL)) return 0;
            return slot.tiles_x * slot.tiles_y;
    }
}

// where a tile is, by its number
__device__ __forceinline__ void set_tile(Item& t, const Level& level, const Slot& slot) {
    const int num = slot.num, stride_x = COLUMNS - 2 * num, stride_y = TILE_HEIGHT - 2 * num;
    const int tile_y = t.block / slot.tiles_x, tile_x = t.block - tile_y * slot.tiles_x;
    t.x0 = max(0, min(tile_x * stride_x, level.width - COLUMNS));
    t.y0 = max(0, min(tile_y * stride_y, level.height - TILE_HEIGHT));
    // not its overlap, where others know better, but the image's border is nobody else's
    t.first_x = tile_x == 0 ? 0 : tile_x * stride_x + num;
    t.first_y = tile_y == 0 ? 0 : tile_y * stride_y + num;
    t.end_x = tile_x == slot.tiles_x - 1 ? level.width : (tile_x + 1) * stride_x + num;
    t.end_y = tile_y == slot.tiles_y - 1 ? level.height : (tile_y + 1) * stride_y + num;
}

#define SCHEDULE_THREADS 1024

// the sum of `value` over the threads before this one, and `total` over all; `scratch` has 33 elements
__device__ __forceinline__ int before(int value, int* scratch, int& total) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    int sum = value;
    for (int apart = 1; apart < 32; apart <<= 1) {
        const int other = __shfl_up_sync(ALL, sum, apart);
        if (lane >= apart) sum += other;
    }
    __syncthreads();  // the last call's `scratch` has been read
    if (lane == 31) scratch[warp] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        int all = 0;
        for (int k = 0; k < SCHEDULE_THREADS / 32; k++) {
            const int part = scratch[k];
            scratch[k] = all;
            all += part;
        }
        scratch[32] = all;
    }
    __syncthreads();
    total = scratch[32];
    return scratch[warp] + sum - value;
}

// One block of SCHEDULE_THREADS threads; as many slots at most.
EXTERN __launch_bounds__(SCHEDULE_THREADS) schedule(Engine e) {
    __shared__ float changes[SCHEDULE_THREADS / 32][MAX_GROUP];
    __shared__ int scratch[33];
    __shared__ int starts[SCHEDULE_THREADS], numbers[SCHEDULE_THREADS];
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    // a warp for each slot: sums over tiles, always in the same order, and what they mean
    for (int index = warp; index < e.num_slots; index += SCHEDULE_THREADS / 32) {
        Slot& slot = e.slots[index];
        if (slot.phase == ITERATE) {
            const int num_tiles = slot.tiles_x * slot.tiles_y;
            for (int k = 0; k < slot.num; k++) {
                float sum = 0.0f;
                for (int tile = lane; tile < num_tiles; tile += 32)
                    sum += e.partials[(index * MAX_GROUP + k) * (long long)e.max_items + tile];
                sum = warp_sum(sum);
                if (lane == 0) changes[warp][k] = sum;
            }
        }
        __syncwarp();
        if (lane == 0) {
            if (slot.phase == STORE) {
                Result& result = e.results[slot.pair.result];
                result.clipped = e.counts[2 * index];
                result.infinite = e.counts[2 * index + 1];
                __threadfence_system();  // before the host sees `done`, the flow and what is above must be there
                result.done = 1;
                e.counts[2 * index] = e.counts[2 * index + 1] = 0;
                slot.phase = IDLE;
            } else {
                Slot next = slot;
                advance(e, next, changes[warp]);
                slot = next;
            }
        }
        __syncwarp();
    }
    __syncthreads();
    // slots without a pair take the next ones of the queue
    const bool mine = threadIdx.x < e.num_slots;
    int wanting;
    const int rank = before(mine && e.slots[threadIdx.x].phase == IDLE, scratch, wanting);
    const int taken = e.taken[0], waiting = e.taken[1] - taken;
    if (mine && e.slots[threadIdx.x].phase == IDLE && rank < waiting) {
        Slot slot = {};
        slot.phase = START;
        slot.pair = e.queue[(taken + rank) % e.queue_size];
        slot.level = slot.pair.num_levels - 1;
        e.slots[threadIdx.x] = slot;
    }
    __syncthreads();
    if (threadIdx.x == 0) e.taken[0] = taken + min(wanting, waiting);
    // the work of this step
    for (int kernel = 0; kernel < NUM_KERNELS; kernel++) {
        const int number = mine ? items_of(e, e.slots[threadIdx.x], kernel) : 0;
        int total;
        const int start = before(number, scratch, total);
        starts[threadIdx.x] = start, numbers[threadIdx.x] = number;
        __syncthreads();
        Item* items = items_for(e, kernel);
        const bool are_tiles = kernel == ITERATE_KERNEL || kernel == ITERATE_SMALL_KERNEL;
        for (int index = warp; index < e.num_slots; index += SCHEDULE_THREADS / 32) {
            for (int block = lane; block < numbers[index]; block += 32) {
                Item item = {index, block};
                if (are_tiles) set_tile(item, level_of(e, e.slots[index]), e.slots[index]);
                items[starts[index] + block] = item;
            }
        }
        if (threadIdx.x == 0) e.num_items[kernel] = total;
    }
}

// whether kernels run at all
EXTERN probe(int* answer) {
    if (threadIdx.x == 0) *answer = 42;
}
