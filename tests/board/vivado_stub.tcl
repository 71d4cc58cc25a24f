# Vivado's commands as far as boards/build.tcl uses them: every call is recorded, objects are their names.
#
#   tclsh vivado_stub.tcl RECORD SCRIPT ARGUMENT...
#
# RECORD receives each call, words separated by \x1f, calls by \x1e. Environment: STUB_* as `setting` names them.

proc setting {name default} { expr {[info exists ::env(STUB_$name)] ? $::env(STUB_$name) : $default} }

set record [open [lindex $argv 0] w]
set script [lindex $argv 1]
set argv [lrange $argv 2 end]

proc note {call} { puts -nonewline $::record "[join $call \x1f]\x1e"; flush $::record }
foreach name {set_param add_files update_compile_order create_bd_design apply_bd_automation connect_bd_intf_net
    connect_bd_net assign_bd_address exclude_bd_addr_seg validate_bd_design save_bd_design generate_target
    launch_runs wait_on_run open_run report_timing_summary} {
    proc $name {args} "note \[list $name {*}\$args\]"
}

proc version {args} { return [setting VERSION 2024.1] }
proc create_project {args} { note [list create_project {*}$args]; set ::project [lindex $args 2] }
proc current_project {} { return project }
proc current_fileset {} { return sources_1 }
proc get_runs {name} { return $name }
proc get_files {name} { return $name }
proc get_bd_addr_spaces {name} { return $name }

# Several versions of everything, to see that the newest is taken (1.10 is newer than 1.9).
proc versions {pattern} { lmap version {1.0 1.10 1.9} { string map [list * $version] $pattern } }
proc get_board_parts {args} { expr {[setting BOARDS 1] ? [versions [lindex $args end]] : {}} }
proc get_ipdefs {args} {
    set pattern [lindex $args end]
    expr {[string match *[setting NO_IP -]* $pattern] ? {} : [versions $pattern]}
}

array set cells {}
array set properties {}
proc create_bd_cell {args} {
    note [list create_bd_cell {*}$args]
    set name [lindex $args end]
    set ::cells($name) [lindex $args 3]
    return $name
}
proc set_property {args} {
    note [list set_property {*}$args]
    if {[lindex $args 0] eq "-dict"} {
        foreach {name value} [lindex $args 1] { set ::properties([lindex $args 2],$name) $value }
    } else {
        set ::properties([lindex $args 2],[lindex $args 0]) [lindex $args 1]
    }
}
proc get_property {name object} {
    switch $name {
        STATUS { return [setting STATUS "route_design Complete!"] }
        SLACK { return [setting [string toupper $object] 0.25] }
        CONFIG.DATA_WIDTH { return [setting WIDTH 64] }
        BOARD_PART { return $::properties(project,board_part) }
    }
    error "stub: no property $name"
}
proc of_cell {name} { info exists ::cells([lindex [split $name /] 0]) }
proc get_bd_pins {args} { set name [lindex $args end]; expr {[of_cell $name] ? $name : {}} }
proc get_bd_intf_pins {args} {
    set name [lindex $args end]
    if {[string match edgemoe_0/* $name]} {
        set known [lmap interface [setting INTERFACES {}] { string cat edgemoe_0/ $interface }]
        return [lsearch -all -inline -glob $known $name]
    }
    expr {[of_cell $name] ? $name : {}}
}
proc get_bd_addr_segs {args} {
    set known {/edgemoe_0/s_axi/reg0 /intc/S_AXI/Reg}
    for {set i 0} {$i < 4} {incr i} {
        if {[string match *processing_system7* $::cells(ps)]} {
            lappend known /ps/S_AXI_HP$i/HP${i}_DDR_LOWOCM
        } else {
            set block /ps/SAXIGP[expr {$i + 2}]
            lappend known $block/HP${i}_DDR_LOW $block/HP${i}_QSPI $block/HP${i}_LPS_OCM
            if {$::properties(ps,CONFIG.PSU__HIGH_ADDRESS__ENABLE)} { lappend known $block/HP${i}_DDR_HIGH }
        }
    }
    return [lsearch -all -inline -glob $known /[lindex $args end]]
}

proc get_timing_paths {args} {
    expr {[setting PATHS 1] ? [list [expr {"-hold" in $args ? "whs" : "wns"}]] : {}}
}
proc report_utilization {args} {
    note [list report_utilization {*}$args]
    if {"-return_string" in $args} { return [setting REPORT ""] }
}
proc make_wrapper {args} {
    note [list make_wrapper {*}$args]
    set folder $::project/edgemoe.gen/sources_1/bd/edgemoe_bd/hw_handoff
    if {[setting HANDOFF 1]} {
        file mkdir $folder
        write $folder/edgemoe_bd.hwh "<EDKSYSTEM/>"
    }
    return wrapper.v
}
proc write_bitstream {args} { note [list write_bitstream {*}$args]; write [lindex $args end] [setting BITS bits] }
proc write {path text} { set stream [open $path w]; puts $stream $text; close $stream }

# As Vivado in batch mode: an error ends it with exit code 1.
if {[catch {source $script} message]} {
    puts stderr "ERROR: $message"
    exit 1
}
