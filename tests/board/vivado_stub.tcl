# Vivado's commands as far as boards/build.tcl uses them, strict where Vivado is: an object that is not there is none, a
# setting that an IP has not is ignored with a warning, an incomplete design or address map is not valid.
#
#   tclsh vivado_stub.tcl RECORD SCRIPT ARGUMENT...
#
# RECORD receives each call, words separated by \x1f, calls by \x1e. Environment: STUB_* as `setting` names them.

proc setting {name default} { expr {[info exists ::env(STUB_$name)] ? $::env(STUB_$name) : $default} }

source [file join [file dirname [info script]] vivado_ips.tcl]
set record [open [lindex $argv 0] w]
set script [lindex $argv 1]
set argv [lrange $argv 2 end]

proc note {call} { puts -nonewline $::record "[join $call \x1f]\x1e"; flush $::record }
foreach name {set_param add_files update_compile_order create_bd_design save_bd_design generate_target launch_runs
    wait_on_run open_run} {
    proc $name {args} "note \[list $name {*}\$args\]"
}
# As Vivado: the message with its number, then an error without one.
proc failed {command text} {
    puts "ERROR: \[Stub 1-1\] $text"
    error "ERROR: \[Common 17-39\] '$command' failed due to earlier errors."
}

proc version {args} { return [setting VERSION 2024.1] }
proc create_project {args} {
    note [list create_project {*}$args]
    set ::project [lindex $args 2]
    set ::properties(project,PART) [lindex $args [expr {[lsearch $args -part] + 1}]]
}
proc current_project {} { return project }
proc current_fileset {} { return sources_1 }
proc get_runs {name} { return $name }
proc get_files {name} { return $name }
proc get_parts {args} { expr {[setting PARTS 1] ? [lindex $args end] : {}} }

# Several versions of everything, to see that the newest is taken (1.10 is newer than 1.9).
proc versions {pattern} { lmap version {1.0 1.10 1.9} { string map [list * $version] $pattern } }
proc get_board_parts {args} { expr {[setting BOARDS 1] ? [versions [lindex $args end]] : {}} }
proc get_ipdefs {args} {
    set pattern [lindex $args end]
    expr {[string match *[setting NO_IP -]* $pattern] ? {} : [versions $pattern]}
}

array set cells {}
array set properties {}
set joined {}
set excluded {}
set assigned {}
proc create_bd_cell {args} {
    note [list create_bd_cell {*}$args]
    set name [lindex $args end]
    set ::cells($name) [lindex $args 3]
    foreach {setting value} $::settings_of([kind $name]) { set ::properties($name,CONFIG.$setting) $value }
    return $name
}
proc apply_bd_automation {args} {
    note [list apply_bd_automation {*}$args]
    if {[string match {make_external "FIXED_IO, DDR"*} [lindex $args 3]]} { lappend ::joined ps/DDR ps/FIXED_IO }
}
proc set_property {args} {
    note [list set_property {*}$args]
    if {[lindex $args 0] ne "-dict"} {
        set ::properties([lindex $args 2],[lindex $args 0]) [lindex $args 1]
        set ::properties(project,PART) [setting PART $::properties(project,PART)]  ;# the board files' wins
        return
    }
    set cell [lindex $args 2]
    foreach {name value} [lindex $args 1] {
        if {![info exists ::properties($cell,$name)]} {
            puts "CRITICAL WARNING: \[BD 41-1276\] Cannot set the parameter $name on /$cell. Parameter does not exist"
        } elseif {$name ni [setting DISABLED {}]} {
            set ::properties($cell,$name) $value
        }
    }
}
proc get_property {name object} {
    switch $name {
        STATUS { return [setting STATUS "route_design Complete!"] }
        SLACK { return [setting [string toupper $object] 0.25] }
        PART { return $::properties(project,PART) }
        BOARD_PART { return $::properties(project,board_part) }
        CONFIG.DATA_WIDTH { return [setting WIDTH 64] }
        CONFIG.NUM_READ_OUTSTANDING - CONFIG.NUM_WRITE_OUTSTANDING {
            return [setting [expr {[string match memory* $object] ? {CONVERTED} : {OUTSTANDING}}] 16]
        }
        CONFIG.FREQ_HZ { return [setting FREQ_HZ [clock_hz]] }
    }
    return [expr {[info exists ::properties($object,$name)] ? $::properties($object,$name) : ""}]
}

proc matching {names pattern} { return [lsearch -all -inline -glob $names $pattern] }
proc of_cells {what} {
    set found {}
    foreach cell [array names ::cells] { foreach name [$what $cell] { lappend found $cell/$name } }
    return $found
}
proc all_pins {cell} { return [concat {*}[dict values [pins_of $cell]]] }
proc get_bd_pins {args} { return [matching [of_cells all_pins] [lindex $args end]] }
proc get_bd_intf_pins {args} { return [matching [of_cells interfaces_of] [lindex $args end]] }
proc get_bd_addr_segs {args} { return [matching [dict keys [segments]] /[string trimleft [lindex $args end] /]] }
proc get_bd_addr_spaces {args} {
    return [matching [concat ps/Data [get_bd_intf_pins edgemoe_0/m*_axi]] [lindex $args end]]
}

proc connect_bd_intf_net {args} {
    note [list connect_bd_intf_net {*}$args]
    if {[lsearch -glob $args edgemoe_0/m*] >= 0 && [lsearch -glob $args ps/S_AXI_HP*] >= 0} {
        if {[kind ps] eq "processing_system7"} { failed connect_bd_intf_net "$args: AXI4 and AXI3" }
    }
    foreach end $args {
        if {$end in $::joined} { failed connect_bd_intf_net "$end is connected already" }
        lappend ::joined $end
    }
}
proc connect_bd_net {args} {
    note [list connect_bd_net {*}$args]
    set sinks [lassign $args source]
    lassign [split $source /] cell name
    if {$name ni [dict get [pins_of $cell] outputs]} { failed connect_bd_net "$source drives nothing" }
    foreach end $sinks {
        if {$end in $::joined} { failed connect_bd_net "$end is driven already" }
        lappend ::joined $end
    }
}

proc assign_bd_address {args} {
    note [list assign_bd_address {*}$args]
    set segment [lindex $args 6]
    lassign [list [lindex $args 1] [lindex $args 3] [lindex $args 5]] offset range space
    lassign [dict get [segments] $segment] first size
    if {$range & ($range - 1)} { failed assign_bd_address "range $range of $segment is no power of two" }
    if {$offset % $range} { failed assign_bd_address "$segment at $offset is not aligned to its range $range" }
    if {$offset < $first || $offset + $range > $first + $size} {
        failed assign_bd_address "$segment cannot be at $offset"
    }
    foreach {other_space other other_offset other_range} $::assigned {
        if {$other_space eq $space && $offset < $other_offset + $other_range && $other_offset < $offset + $range} {
            failed assign_bd_address "$segment overlaps $other"
        }
    }
    lappend ::assigned $space $segment $offset $range
}
proc exclude_bd_addr_seg {args} {
    note [list exclude_bd_addr_seg {*}$args]
    lappend ::excluded [lindex $args 1] [lindex $args 2]
}

proc validate_bd_design {args} {
    note [list validate_bd_design {*}$args]
    foreach cell [array names ::cells] {
        foreach name [concat [dict get [pins_of $cell] inputs] [interfaces_of $cell]] {
            if {"$cell/$name" ni $::joined} { failed validate_bd_design "$cell/$name is not connected" }
        }
    }
    foreach space [concat ps/Data [get_bd_intf_pins edgemoe_0/m*_axi]] {
        foreach segment [dict keys [segments]] {
            set index [string index [lindex [split $space /] 1] 1]
            if {[string match ps/* $space] != [regexp {^/(edgemoe_0|intc)/} $segment]} continue
            if {[string match edgemoe_0/* $space] && ![string match */HP${index}_* $segment]} continue
            set known 0
            foreach {its_space its_segment} [concat $::excluded [concat {*}[lmap {a b c d} $::assigned {list $a $b}]]] {
                if {$its_space eq $space && $its_segment eq $segment} { incr known }
            }
            if {$known != 1} { failed validate_bd_design "$segment is mapped $known times into $space" }
        }
    }
}

proc get_timing_paths {args} {
    note [list get_timing_paths {*}$args]
    expr {[setting PATHS 1] ? [list [expr {"-hold" in $args ? "whs" : "wns"}]] : {}}
}
proc report_timing_summary {args} {
    note [list report_timing_summary {*}$args]
    write [lindex $args end] "timing"
}
proc report_utilization {args} {
    note [list report_utilization {*}$args]
    if {"-return_string" in $args} { return [setting REPORT ""] }
    write [lindex $args end] "utilisation"
}
proc make_wrapper {args} {
    note [list make_wrapper {*}$args]
    set folder $::project/edgemoe.gen/sources_1/bd/edgemoe_bd/hw_handoff
    if {[setting HANDOFF 1]} {
        file mkdir $folder
        write $folder/edgemoe_bd.hwh "<EDKSYSTEM/>"
    }
    return $::project/wrapper.v
}
proc write_bitstream {args} { note [list write_bitstream {*}$args]; write [lindex $args end] [setting BITS bits] }
proc write {path text} { set stream [open $path w]; puts $stream $text; close $stream }

# As Vivado in batch mode: an error ends it with exit code 1 and Tcl's stack.
if {[catch {source $script}]} {
    puts $errorInfo
    exit 1
}
