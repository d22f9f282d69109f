package terminate

import (
	"testing"

	"github.com/ambit-mesh/ambit/waypoint/backendtest"
)

func TestMain(m *testing.M) { backendtest.Main(m) }
