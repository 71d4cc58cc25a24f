/* Opens the Linux platform on files that look like a board's: linux-board BUNDLE UIO DEVICES CLASSES. Prints what it
 * sees; tests/sw/test_c_linux.py looks at the files. */
#include <stdio.h>
#include <string.h>

#include "edgemoe.h"
#include "edgemoe_regs.h"

static int fail(const struct emoe_error *error) {
    (void)fprintf(stderr, "edgemoe: %s\n", error->text);
    return 1;
}

int main(int argc, char **argv) {
    struct emoe_error error = {EMOE_OK, 0, 0, ""};
    struct emoe_linux_options options;
    struct emoe_platform platform, second;
    struct emoe_buffer one, two;
    struct emoe_bundle bundle;
    struct emoe_device device;
    uint32_t value;
    if (argc != 5) return 2;
    memset(&options, 0, sizeof options);
    options.uio = argv[2];
    options.udmabuf = "udmabuf0";
    options.devices = argv[3];
    options.classes = argv[4];
    if (!emoe_linux_open(&platform, &options, &error)) return fail(&error);
    void *context = platform.context;
    if (emoe_linux_open(&second, &options, &error)) return 3;
    (void)printf("%s\n", error.text);
    if (!platform.read(context, EMOE_REG_ISA_VERSION, &value, &error)) return fail(&error);
    (void)printf("%u\n", (unsigned)value);
    if (!platform.write(context, EMOE_REG_WATCHDOG, 77, &error)) return fail(&error);
    if (!platform.allocate(context, 100, &one, &error) || !platform.allocate(context, 5000, &two, &error))
        return fail(&error);
    (void)printf("%llx %llx\n", (unsigned long long)one.address, (unsigned long long)two.address);
    memset(two.bytes, 0xa5, two.size);
    if (!platform.flush(context, &two, &error) || !platform.invalidate(context, &one, &error)) return fail(&error);
    if (platform.allocate(context, (size_t)1 << 30, &one, &error)) return 4;
    (void)printf("%s\n", error.text);
    platform.release_all(context);
    if (!emoe_bundle_load(&bundle, argv[1], &error)) return fail(&error);
    const double begin = platform.now(context);
    const bool opened =
        platform.wait(context, 0.01, false, &error) && emoe_device_open(&device, &platform, &bundle, NULL, &error);
    (void)printf("%d\n%s\n", platform.now(context) - begin >= 0.009, error.text);
    if (opened) (void)emoe_device_close(&device, NULL);
    platform.close(context);
    emoe_bundle_free(&bundle);
    return opened ? 0 : 1;
}
