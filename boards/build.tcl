# Block design, place and route, and bitstream of one board:
#
#   vivado -mode batch -source boards/build.tcl -tclargs build/boards/<board>/parameters.tcl
#
# `edgemoe boards bitstream` writes the parameters (a dictionary made from boards/<board>/board.toml) and runs this.
# No IP version is named, so that every Vivado from 2022.1 on can run it. Results in the work folder, only if timing is
# met: edgemoe.bit, edgemoe.hwh, result.json, utilization.rpt, timing.rpt.
#
#   ps ──control──▶ control (SmartConnect) ──▶ edgemoe_0/s_axi, intc/s_axi
#   ps ◀──HP i──── edgemoe_0/m<i>_axi                                   one HP port a master: no arbitration
#                  between them memory<i> (SmartConnect) where HP is AXI3
#   ps ◀──irq───── intc ◀── edgemoe_0/irq                               PYNQ waits on an axi_intc only

proc value {key} { return [dict get $::build $key] }

# --- Looking things up: what is missing is an error here, not a strange message later -------------------------------

proc newest_ip {vlnv} {
    set found [lsort -dictionary [get_ipdefs -quiet "$vlnv:*"]]
    if {![llength $found]} { error "edgemoe: this Vivado has no IP $vlnv" }
    return [lindex $found end]
}

proc check_part {} {
    if {![llength [get_parts -quiet [value part]]]} {
        error "edgemoe: this Vivado has no device support for [value part]: add it with Vivado's installer"
    }
}

proc newest_board_part {name} {
    set found [lsort -dictionary [get_board_parts -quiet "$name:*"]]
    if {![llength $found]} {
        error "edgemoe: the files of board $name are not installed: install them with Vivado's board store\
            (Tools, Vivado Store, Boards), or set BOARD_FILES to a folder that has them"
    }
    return [lindex $found end]
}

proc pin {name} {
    set found [get_bd_pins -quiet $name]
    if {![llength $found]} { error "edgemoe: the block design has no pin $name" }
    return $found
}

proc interface {name} {
    set found [get_bd_intf_pins -quiet $name]
    if {![llength $found]} { error "edgemoe: the block design has no interface $name" }
    return $found
}

proc segment {name} {
    set found [get_bd_addr_segs -quiet $name]
    if {![llength $found]} { error "edgemoe: the block design has no address segment $name" }
    return $found
}

proc address_space {name} {
    set found [get_bd_addr_spaces -quiet $name]
    if {![llength $found]} { error "edgemoe: the block design has no address space $name" }
    return $found
}

# Vivado only warns of a setting that an IP has not or that another setting disables (BD 41-1276, BD 41-721).
proc configure {cell settings} {
    set_property -dict $settings $cell
    foreach {name wanted} $settings {
        set found [get_property $name $cell]
        if {$found != $wanted} { error "edgemoe: $name of $cell is '$found' and cannot be set to '$wanted'" }
    }
}

proc ip {vlnv name args} {
    set cell [create_bd_cell -type ip -vlnv [newest_ip $vlnv] $name]
    if {[llength $args]} { configure $cell $args }
    return $cell
}

# --- The block design ------------------------------------------------------------------------------------------------

proc processing_system {} {
    set rule [string map {:ip: :bd_rule:} [value ps_ip]]
    set cell [ip [value ps_ip] ps]
    apply_bd_automation -rule $rule -config [value ps_automation] $cell
    configure $cell [value ps_clock_mode]
    configure $cell [value ps_settings]
    check_clock
}

# The clock that the PLL gives, is timed and stands in the manifest: clock_mhz or the next lower one.
proc check_clock {} {
    set mhz [clock_mhz]
    if {$mhz > 1.001 * [value clock_mhz] || $mhz < 0.9 * [value clock_mhz]} {
        error "edgemoe: the processing system makes $mhz MHz of clock_mhz = [value clock_mhz] in\
            boards/[value board]/board.toml: set one that its PLL gives"
    }
}

proc clock_mhz {} {
    set hz [get_property CONFIG.FREQ_HZ [pin ps/[value clock]]]
    if {![string is double -strict $hz]} { error "edgemoe: pin ps/[value clock] has no frequency: '$hz'" }
    return [format %.9g [expr {$hz / 1e6}]]
}

proc cells {} {
    processing_system
    create_bd_cell -type module -reference edgemoe edgemoe_0
    ip xilinx.com:ip:proc_sys_reset reset
    ip xilinx.com:ip:smartconnect control CONFIG.NUM_SI 1 CONFIG.NUM_MI 2 CONFIG.NUM_CLKS 1
    ip xilinx.com:ip:axi_intc intc CONFIG.C_IRQ_CONNECTION 1
    if {![value hp_is_axi4]} {
        for {set i 0} {$i < [llength [value masters]]} {incr i} {
            ip xilinx.com:ip:smartconnect memory$i CONFIG.NUM_SI 1 CONFIG.NUM_MI 1 CONFIG.NUM_CLKS 1
        }
    }
}

# Clocks before interfaces: an interface that is connected takes its clock's frequency along.
proc connections {} {
    set clocked [list edgemoe_0/clk reset/slowest_sync_clk control/aclk intc/s_axi_aclk ps/[value control_clock]]
    set reset_low [list control/aresetn intc/s_axi_aresetn]

    set i 0
    foreach master [value masters] {
        lappend clocked ps/[dict get $master clock]
        if {![value hp_is_axi4]} {
            lappend clocked memory$i/aclk
            lappend reset_low memory$i/aresetn
        }
        incr i
    }

    foreach name $clocked { connect_bd_net [pin ps/[value clock]] [pin $name] }
    connect_bd_net [pin ps/[value reset]] [pin reset/ext_reset_in]
    foreach name $reset_low { connect_bd_net [pin reset/peripheral_aresetn] [pin $name] }
    connect_bd_net [pin reset/peripheral_reset] [pin edgemoe_0/rst]
    connect_bd_net [pin edgemoe_0/irq] [pin intc/intr]
    connect_bd_net [pin intc/irq] [pin ps/[value irq]]

    connect_bd_intf_net [interface ps/[value control]] [interface control/S00_AXI]
    connect_bd_intf_net [interface control/M00_AXI] [interface edgemoe_0/s_axi]
    connect_bd_intf_net [interface control/M01_AXI] [interface intc/s_axi]
    set i 0
    foreach master [value masters] {
        set from [interface edgemoe_0/[dict get $master master]]
        set to [interface ps/[dict get $master port]]
        if {[value hp_is_axi4]} {
            connect_bd_intf_net $from $to
        } else {
            connect_bd_intf_net $from [interface memory$i/S00_AXI]
            connect_bd_intf_net [interface memory$i/M00_AXI] $to
        }
        incr i
    }
}

proc addresses {} {
    set range [value control_range]
    set control [address_space ps/Data]
    assign_bd_address -offset [value control_base] -range $range -target_address_space $control \
        [segment edgemoe_0/s_axi/reg0] -force
    assign_bd_address -offset [value interrupt_controller_base] -range $range -target_address_space $control \
        [segment intc/S_AXI/Reg] -force

    foreach master [value masters] {
        set space [address_space edgemoe_0/[dict get $master master]]
        set block ps/[dict get $master block]
        set used {}
        foreach entry [dict get $master segments] {
            lassign $entry name offset size
            lappend used [string trimleft [segment $block/$name] /]
            assign_bd_address -offset $offset -range $size -target_address_space $space [segment $block/$name] -force
        }
        # DRAM only: no program may reach the boot flash or the on-chip memory.
        foreach other [get_bd_addr_segs -quiet $block/*] {
            if {[string trimleft $other /] ni $used} {
                exclude_bd_addr_seg -target_address_space $space $other
            }
        }
    }
}

# The RTL's interfaces as Vivado understood them.
proc check_interfaces {} {
    set found [lsort [get_bd_intf_pins -quiet edgemoe_0/m*_axi]]
    if {[llength $found] != [llength [value masters]]} {
        error "edgemoe: Vivado sees the masters '$found' of the RTL, not [llength [value masters]]"
    }
    foreach interface $found {
        set bits [get_property CONFIG.DATA_WIDTH $interface]
        if {$bits != [value data_bits]} { error "edgemoe: $interface has $bits data bits, not [value data_bits]" }
    }
}

# A SmartConnect lets through as many unfinished bursts as its master declares, and by default only two: with AXI3's
# short ones most of the bandwidth would be lost. What it made of the declaration is known after validation.
proc check_outstanding {} {
    foreach interface [lsort [get_bd_intf_pins -quiet edgemoe_0/m*_axi]] {
        foreach kind {READ WRITE} {
            set found [get_property CONFIG.NUM_${kind}_OUTSTANDING $interface]
            if {$found != [value outstanding]} {
                error "edgemoe: $interface has '$found' outstanding transactions ($kind), not [value outstanding]"
            }
        }
    }
    foreach interface [lsort [get_bd_intf_pins -quiet memory*/M00_AXI]] {
        set found [get_property CONFIG.NUM_READ_OUTSTANDING $interface]
        if {[string is integer -strict $found] && $found < 8} {
            puts "edgemoe: warning: $interface lets only $found reads through at a time; loads will be slow"
        }
    }
}

# The accelerator is synthesized with the rest and not by itself, so that the strategy of the one synthesis is its own
# too: a strategy of a run does not reach the runs of a block design's cells. Retiming moves registers over logic; after
# placement and again after routing the paths that are too slow are worked on.
proc choose_strategies {} {
    set synthesis [get_runs synth_1]
    set_property strategy Flow_PerfOptimized_high $synthesis
    set_property STEPS.SYNTH_DESIGN.ARGS.RETIMING true $synthesis
    set implementation [get_runs impl_1]
    set_property strategy Performance_Explore $implementation
    set_property STEPS.PHYS_OPT_DESIGN.IS_ENABLED true $implementation
    set_property STEPS.PHYS_OPT_DESIGN.ARGS.DIRECTIVE AggressiveExplore $implementation
    set_property STEPS.POST_ROUTE_PHYS_OPT_DESIGN.IS_ENABLED true $implementation
    set_property STEPS.POST_ROUTE_PHYS_OPT_DESIGN.ARGS.DIRECTIVE AggressiveExplore $implementation
}

# --- Implementation --------------------------------------------------------------------------------------------------

proc finish_run {name args} {
    launch_runs $name {*}$args -jobs 4
    wait_on_run $name
    set status [get_property STATUS [get_runs $name]]
    # "Complete, Failed Timing!" too: timing is judged below, with its figure.
    if {![string match *Complete* $status]} { error "edgemoe: $name ended with '$status'; see its log in [value work]" }
}

proc slack {kind} {
    set paths [get_timing_paths -quiet $kind -max_paths 1 -nworst 1]
    if {![llength $paths]} { error "edgemoe: no timing paths: the design has no clock, or nothing is left of it" }
    return [get_property SLACK [lindex $paths 0]]
}

proc check_timing {mhz setup hold} {
    if {$setup < 0 || $hold < 0} {
        error "edgemoe: timing is not met at $mhz MHz: worst setup slack $setup ns, worst hold slack\
            $hold ns; lower clock_mhz in boards/[value board]/board.toml. The paths are in [value work]/timing.rpt"
    }
}

# Used cells by report_utilization's rows, whose names differ between families and versions.
proc utilisation {} {
    set report [report_utilization -return_string]
    set rows {lut {(CLB|Slice) LUTs} ff {(CLB|Slice) Registers} dsp DSPs bram36 {Block RAM Tile} uram URAM}
    set found {}
    foreach {resource row} $rows {
        if {[regexp -line "^\\|\\s*$row\\*?\\s*\\|\\s*(\[0-9.\]+)" $report match]} {
            lappend found "\"$resource\": [lindex [regexp -inline -- {([0-9.]+)$} $match] 1]"
        }
    }
    return "{[join $found {, }]}"
}

proc write_results {mhz setup hold} {
    set work [value work]
    set handoff $work/project/edgemoe.gen/sources_1/bd/edgemoe_bd/hw_handoff/edgemoe_bd.hwh
    if {![file exists $handoff]} { error "edgemoe: Vivado wrote no hardware handoff $handoff" }
    write_bitstream -force $work/edgemoe.bit
    file copy -force $handoff $work/edgemoe.hwh
    set stream [open $work/result.json w]
    puts $stream "{\"vivado\": \"[version -short]\", \"board_part\": \"[get_property BOARD_PART [current_project]]\","
    puts $stream " \"clock_mhz\": $mhz, \"wns_ns\": $setup, \"whs_ns\": $hold, \"utilisation\": [utilisation]}"
    close $stream
}

proc main {parameters} {
    uplevel #0 [list source $parameters]
    set work [value work]
    set results {edgemoe.bit edgemoe.hwh result.json utilization.rpt timing.rpt}
    foreach old [concat project $results] { file delete -force $work/$old }

    if {[info exists ::env(BOARD_FILES)]} { set_param board.repoPaths [list $::env(BOARD_FILES)] }
    check_part
    create_project -force edgemoe $work/project -part [value part]
    set_property board_part [newest_board_part [value board_part]] [current_project]
    set part [get_property PART [current_project]]
    if {![string equal -nocase $part [value part]]} {
        error "edgemoe: the installed files of board [value board_part] are for $part, and\
            boards/[value board]/board.toml says [value part]"
    }
    add_files -norecurse [list [value rtl]]
    update_compile_order -fileset sources_1

    create_bd_design edgemoe_bd
    cells
    check_interfaces
    connections
    addresses
    validate_bd_design
    check_outstanding
    save_bd_design
    set mhz [clock_mhz]
    set design [get_files edgemoe_bd.bd]
    set_property synth_checkpoint_mode None $design
    generate_target all $design
    add_files -norecurse [list [make_wrapper -files $design -top]]
    set_property top edgemoe_bd_wrapper [current_fileset]
    update_compile_order -fileset sources_1

    choose_strategies
    finish_run synth_1
    finish_run impl_1  ;# all steps that are enabled, up to the bitstream, which is written if timing is met
    open_run impl_1
    report_utilization -file $work/utilization.rpt
    report_timing_summary -file $work/timing.rpt
    set setup [slack -setup]
    set hold [slack -hold]
    check_timing $mhz $setup $hold
    write_results $mhz $setup $hold
}

if {[llength $argv] != 1} { error "edgemoe: usage: vivado -mode batch -source build.tcl -tclargs PARAMETERS" }
main [lindex $argv 0]
