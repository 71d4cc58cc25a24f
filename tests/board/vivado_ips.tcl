# The IPs of the block design, as far as it uses them: settings, pins, interfaces and address segments. They come and go
# with the settings as in Vivado. Names and values: the presets of github.com/Xilinx/XilinxBoardStore, and block designs
# in public repositories of Xilinx (PYNQ, Kria-PYNQ, kria-base-hardware, AUP-ZU3).

# Names and values as a board's preset leaves them; any other name is none of the IP's.
array set settings_of {
    processing_system7 {
        PCW_OVERRIDE_BASIC_CLOCK 0 PCW_FPGA0_PERIPHERAL_FREQMHZ 50 PCW_EN_CLK0_PORT 1 PCW_EN_RST0_PORT 1
        PCW_USE_FABRIC_INTERRUPT 0 PCW_IRQ_F2P_INTR 0
        PCW_USE_M_AXI_GP0 1 PCW_USE_M_AXI_GP1 0 PCW_USE_S_AXI_GP0 0 PCW_USE_S_AXI_GP1 0 PCW_USE_S_AXI_ACP 0
        PCW_USE_S_AXI_HP0 0 PCW_USE_S_AXI_HP1 0 PCW_USE_S_AXI_HP2 0 PCW_USE_S_AXI_HP3 0
        PCW_S_AXI_HP0_DATA_WIDTH 64 PCW_S_AXI_HP1_DATA_WIDTH 64 PCW_S_AXI_HP2_DATA_WIDTH 64
        PCW_S_AXI_HP3_DATA_WIDTH 64
    }
    zynq_ultra_ps_e {
        PSU__OVERRIDE__BASIC_CLOCK 1 PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ 100
        PSU__CRL_APB__PL0_REF_CTRL__SRCSEL RPLL
        PSU__FPGA_PL0_ENABLE 0 PSU__FPGA_PL1_ENABLE 1 PSU__FPGA_PL2_ENABLE 0 PSU__FPGA_PL3_ENABLE 0
        PSU__USE__FABRIC__RST 0 PSU__USE__IRQ0 0 PSU__HIGH_ADDRESS__ENABLE 0
        PSU__USE__M_AXI_GP0 1 PSU__USE__M_AXI_GP1 1 PSU__USE__M_AXI_GP2 0
        PSU__USE__S_AXI_GP0 0 PSU__USE__S_AXI_GP1 0 PSU__USE__S_AXI_GP2 0 PSU__USE__S_AXI_GP3 0
        PSU__USE__S_AXI_GP4 0 PSU__USE__S_AXI_GP5 0 PSU__USE__S_AXI_GP6 0 PSU__USE__S_AXI_ACP 0 PSU__USE__S_AXI_ACE 0
        PSU__MAXIGP0__DATA_WIDTH 128 PSU__SAXIGP2__DATA_WIDTH 128 PSU__SAXIGP3__DATA_WIDTH 128
        PSU__SAXIGP4__DATA_WIDTH 128 PSU__SAXIGP5__DATA_WIDTH 128
    }
    smartconnect {NUM_SI 1 NUM_MI 1 NUM_CLKS 1}
    axi_intc {C_IRQ_CONNECTION 0}
    proc_sys_reset {}
    edgemoe {}
}

proc kind {cell} { return [lindex [split $::cells($cell) :] end-[expr {[string match *:* $::cells($cell)] ? 1 : 0}]] }
proc has {cell name} { return [expr {$::properties($cell,CONFIG.$name) eq "1"}] }
proc on {cell name words} { return [expr {[has $cell $name] ? $words : {}}] }

# Pins of a cell: `inputs` must be connected, `free` may be, `outputs` drive.
proc pins_of {cell} {
    set pins {inputs {} free {} outputs {}}
    switch [kind $cell] {
        processing_system7 {
            dict lappend pins outputs {*}[on $cell PCW_EN_CLK0_PORT FCLK_CLK0] \
                {*}[on $cell PCW_EN_RST0_PORT FCLK_RESET0_N]
            if {[has $cell PCW_USE_FABRIC_INTERRUPT]} {
                dict lappend pins inputs {*}[on $cell PCW_IRQ_F2P_INTR IRQ_F2P]
            }
            foreach port {M_AXI_GP0 M_AXI_GP1 S_AXI_HP0 S_AXI_HP1 S_AXI_HP2 S_AXI_HP3} {
                dict lappend pins inputs {*}[on $cell PCW_USE_$port ${port}_ACLK]
            }
        }
        zynq_ultra_ps_e {
            dict lappend pins outputs {*}[on $cell PSU__FPGA_PL0_ENABLE pl_clk0] \
                {*}[on $cell PSU__FPGA_PL1_ENABLE pl_clk1] {*}[on $cell PSU__USE__FABRIC__RST pl_resetn0]
            dict lappend pins inputs {*}[on $cell PSU__USE__IRQ0 pl_ps_irq0] \
                {*}[on $cell PSU__USE__M_AXI_GP0 maxihpm0_fpd_aclk] \
                {*}[on $cell PSU__USE__M_AXI_GP1 maxihpm1_fpd_aclk] \
                {*}[on $cell PSU__USE__M_AXI_GP2 maxihpm0_lpd_aclk]
            for {set i 0} {$i < 4} {incr i} {
                dict lappend pins inputs {*}[on $cell PSU__USE__S_AXI_GP[expr {$i + 2}] saxihp${i}_fpd_aclk]
            }
        }
        smartconnect { dict lappend pins inputs aclk aresetn }
        axi_intc {
            dict lappend pins inputs s_axi_aclk s_axi_aresetn intr
            dict lappend pins outputs {*}[on $cell C_IRQ_CONNECTION irq]
        }
        proc_sys_reset {
            dict lappend pins inputs slowest_sync_clk ext_reset_in
            dict lappend pins free aux_reset_in mb_debug_sys_rst dcm_locked
            dict lappend pins outputs mb_reset bus_struct_reset peripheral_reset interconnect_aresetn peripheral_aresetn
        }
        edgemoe {
            dict lappend pins inputs clk rst
            dict lappend pins outputs irq
        }
    }
    return $pins
}

proc interfaces_of {cell} {
    set found {}
    switch [kind $cell] {
        processing_system7 {
            foreach port {M_AXI_GP0 M_AXI_GP1 S_AXI_HP0 S_AXI_HP1 S_AXI_HP2 S_AXI_HP3} {
                lappend found {*}[on $cell PCW_USE_$port $port]
            }
            lappend found DDR FIXED_IO
        }
        zynq_ultra_ps_e {
            foreach {number port} {0 M_AXI_HPM0_FPD 1 M_AXI_HPM1_FPD 2 M_AXI_HPM0_LPD} {
                lappend found {*}[on $cell PSU__USE__M_AXI_GP$number $port]
            }
            for {set i 0} {$i < 4} {incr i} {
                lappend found {*}[on $cell PSU__USE__S_AXI_GP[expr {$i + 2}] S_AXI_HP${i}_FPD]
            }
        }
        smartconnect {
            for {set i 0} {$i < $::properties($cell,CONFIG.NUM_SI)} {incr i} { lappend found [format S%02d_AXI $i] }
            for {set i 0} {$i < $::properties($cell,CONFIG.NUM_MI)} {incr i} { lappend found [format M%02d_AXI $i] }
        }
        axi_intc { lappend found s_axi }
        edgemoe { lappend found {*}[setting INTERFACES {}] }
    }
    return $found
}

# Segments of all slaves with the first address and the size that each can have.
proc segments {} {
    set seven [string equal [kind ps] processing_system7]
    set control [expr {$seven ? {0x40000000 0x40000000} : {0xA0000000 0x10000000}}]
    set found [list /edgemoe_0/s_axi/reg0 $control /intc/S_AXI/Reg $control]
    for {set i 0} {$i < 4} {incr i} {
        if {$seven} {
            if {![has ps PCW_USE_S_AXI_HP$i]} continue
            lappend found /ps/S_AXI_HP$i/HP${i}_DDR_LOWOCM {0 0x40000000}
        } else {
            if {![has ps PSU__USE__S_AXI_GP[expr {$i + 2}]]} continue
            set block /ps/SAXIGP[expr {$i + 2}]/HP$i
            lappend found ${block}_DDR_LOW {0 0x80000000} ${block}_QSPI {0xC0000000 0x20000000} \
                ${block}_LPS_OCM {0xFF000000 0x1000000} ${block}_PCIE_LOW {0xE0000000 0x10000000}
            if {[has ps PSU__HIGH_ADDRESS__ENABLE]} { lappend found ${block}_DDR_HIGH {0x800000000 0x800000000} }
        }
    }
    return $found
}

# Of the clock to the PL, as the tool divides it from the IO PLL; a preset with divisors of its own keeps 100 MHz.
proc clock_hz {} {
    set pll [setting PLL 1500]
    if {[string equal [kind ps] processing_system7]} {
        set asked $::properties(ps,CONFIG.PCW_FPGA0_PERIPHERAL_FREQMHZ)
    } else {
        if {[has ps PSU__OVERRIDE__BASIC_CLOCK]} { return 99999900 }
        set asked $::properties(ps,CONFIG.PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ)
        if {$::properties(ps,CONFIG.PSU__CRL_APB__PL0_REF_CTRL__SRCSEL) ne "IOPLL"} { return [expr {1000000 * $asked}] }
    }
    return [expr {round(1e6 * $pll / ceil(double($pll) / $asked - 1e-6))}]
}
