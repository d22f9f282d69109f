package podns

import "testing"

// FuzzProc: what /proc says of a process names one pod that is looked for, or
// none, and its age only if that is a number.
func FuzzProc(f *testing.F) {
	const uid = "01234567-89ab-cdef-0123-456789abcdef"
	f.Add("0::/kubepods/pod"+uid+"/x", "1 (a) b) S 1 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 1 2")
	f.Add("0::/kubepods.slice/kubepods-pod01234567_89ab_cdef_0123_456789abcdef.slice", "1 (")
	f.Fuzz(func(t *testing.T, cgroups, stat string) {
		if o := owner(cgroups, map[string]string{uid: uid, "other": "other"}); o != "" && o != uid {
			t.Errorf("%q is %q's", cgroups, o)
		}
		startTime(stat)
	})
}
