// The pins of an ULX3S (v2, v3) around the generated system (module edgemoe): tristate data, the SDRAM's clock, LEDs.
module ulx3s (
    input         clk_25mhz,
    input         ftdi_txd,  // to the FPGA
    output        ftdi_rxd,  // from the FPGA
    output [7:0]  led,
    output        wifi_gpio0,
    output        sdram_clk, sdram_cke, sdram_csn, sdram_rasn, sdram_casn, sdram_wen,
    output [1:0]  sdram_ba, sdram_dqm,
    output [12:0] sdram_a,
    inout  [15:0] sdram_d
);
    wire        clk = clk_25mhz;
    wire        drive;
    wire [15:0] write_data;

    edgemoe system (
        .clk(clk), .rst(1'b0), .rx(ftdi_txd), .tx(ftdi_rxd), .led(led[3:0]),
        .sdram_command({sdram_wen, sdram_casn, sdram_rasn}), .sdram_bank(sdram_ba), .sdram_address(sdram_a),
        .sdram_mask(sdram_dqm), .sdram_write_data(write_data), .sdram_drive(drive), .sdram_read_data(sdram_d)
    );

    assign sdram_d = drive ? write_data : 16'bz;
    assign sdram_cke = 1'b1;
    assign sdram_csn = 1'b0;
    assign led[7:4] = 4'b0;
    assign wifi_gpio0 = 1'b1;  // low would let the board's other processor take the FPGA's place

    // The chip's clock is the inverse of ours: it takes commands in the middle of their cycle.
    ODDRX1F clock_out (.SCLK(clk), .RST(1'b0), .D0(1'b0), .D1(1'b1), .Q(sdram_clk));
endmodule
