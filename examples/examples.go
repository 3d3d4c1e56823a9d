// Package examples holds ways to run Keystile, one folder each. Its tests load
// every one of them.
package examples
