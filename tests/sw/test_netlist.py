"""A hand-written netlist: where cells of each kind are counted."""

from edgemoe.boards.netlist import cells_by_unit

NETLIST = r"""
module \edgemoe
  wire width 2 $techmap1.A
  wire width 4 \top.compute.norm.x
  wire $abc$1
  wire output 3 \irq
  cell \DSP48E1 $flatten\top.\compute.\array.$mul$v:1$2
    parameter \AREG 1
    connect \A { $techmap1.A 1'0 }
  end
  attribute \src "lut"
  cell \LUT2 $abc$5
    connect \O $techmap1.A [1]
    connect \I0 $abc$1
    connect \I1 1'0
  end
  cell \LUT3 $abc$6
    connect \O $abc$1
    connect \I0 \top.compute.norm.x [2]
  end
  cell \FDRE $auto$7
    connect \Q \top.compute.norm.x [2]
    connect \D $abc$9
  end
  cell \CARRY4 $auto$8
    connect \O { $abc$9 $abc$10 }
    connect \S \top.compute.norm.x
  end
  cell \LUT1 $auto$9
    connect \O \irq
  end
  cell \RAMB36E1 \top.compute.norm.deep.rows.0.0
    connect \ADDR $abc$11
  end
  cell \FDRE $auto$10
    connect \Q \top.busy
  end
end
"""


def test_cells_by_unit():
    assert cells_by_unit(NETLIST) == {
        "compute.array": {"DSP48E1": 1, "LUT2": 1, "LUT3": 1},
        "compute.norm": {"FDRE": 1, "CARRY4": 1, "RAMB36E1": 1},
        "": {"LUT1": 1, "FDRE": 1},
    }


def test_depth():
    assert set(cells_by_unit(NETLIST, depth=1)) == {"compute", ""}
    assert "compute.norm.deep.rows.0" in cells_by_unit(NETLIST, depth=9)
