// Package nft owns what the cni room says to nftables: a table as a value, put
// into the kernel in one transaction, and compared with what the kernel holds.
//
// It refuses to know what the rules are for; cni/rules (inside pods) and
// cni/probes (on the node) describe their tables with it. Comparison decodes
// the kernel's own bytes: github.com/google/nftables v0.3.0 drops some
// expressions and attributes when it reads rules back (the source register of
// "ct mark set", for one), so a changed rule could look right to it.
package nft
